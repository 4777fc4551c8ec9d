"""Real compilers make real images; no GPU is needed for that."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flawline.benchmarks.gpu import reading
from flawline.runtime.errors import InputError, MissingExtraError
from flawline.runtime.kernels.cuda import compiler, prebuilding, sources, toolkits
from flawline.runtime.kernels.cuda.compiler import KERNELS, PREBUILT, load_image
from flawline.runtime.kernels.cuda.resources import read_resources
from flawline.runtime.kernels.cuda.toolkits import CompileError, Nvcc, Nvrtc

INSTALLED = Path(sys.prefix) / "cuda" / "nvidia"
ORIN, ADA, THOR = (8, 7), (8, 9), (11, 0)
SMALL = """
#include "portable.cuh"
#include "factor.cuh"
struct Doubling {
    float* values;
};
FLAWLINE_KERNEL(32, doubled, Doubling) { job.values[threadIdx.x] *= kFactor; }
"""
SPILLING = """
extern "C" __global__ void __launch_bounds__(1024) crowded(float* values) {
    float kept[96];
#pragma unroll
    for (int i = 0; i < 96; ++i) kept[i] = values[i * 1024 + threadIdx.x];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 96; ++i) values[i * 1024 + threadIdx.x] = kept[(37 * i + 5) % 96];
}
"""


@pytest.fixture(scope="session")
def installed() -> Path:
    """The compilers that `make test` installs."""
    if not INSTALLED.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{INSTALLED} is missing: run `make test`, which installs it")
        pytest.skip("no compilers of CUDA: `make test` installs them")
    return INSTALLED


@pytest.fixture(scope="session")
def nvcc(installed: Path) -> Nvcc:
    return Nvcc(installed / "cu13/bin/nvcc")


@pytest.fixture(scope="session")
def nvrtc(installed: Path) -> Nvrtc:
    return Nvrtc(installed / "cuda_nvrtc/lib/libnvrtc.so.12")


@pytest.fixture(scope="session")
def fatbin(nvcc: Nvcc) -> toolkits.Compiled:
    (one,) = (one for one in PREBUILT if one.ptx)
    return nvcc.compile_all(sources.read_sources(KERNELS), one.architectures, one.ptx)


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without compilers of CUDA, whose cache is empty."""
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(toolkits, "_roots", lambda: [Path(root) for root in named_toolkits()])
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def named_toolkits() -> list[str]:
    return [value for name in ("CUDA_HOME", "CUDA_PATH") if (value := os.environ.get(name))]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder with a module of one small kernel."""
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "small.cu").write_text(SMALL)
    (folder / "factor.cuh").write_text("constexpr float kFactor = 2;\n")
    return folder


def cuobjdump(nvcc: Nvcc, image: bytes, folder: Path, *what: str) -> str:
    path = folder / "image"
    path.write_bytes(image)
    words = [nvcc.path.with_name("cuobjdump"), *what, path]
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout


def kernels_in(nvcc: Nvcc, image: bytes, folder: Path) -> list[str]:
    return re.findall(r"Function (\w+):", cuobjdump(nvcc, image, folder, "-res-usage"))


def test_fatbin_holds_every_architecture_and_ptx(nvcc, fatbin, tmp_path):
    text = cuobjdump(nvcc, fatbin.image, tmp_path, "-lelf", "-lptx")
    assert re.findall(r"ELF file.*\.(sm_\d+)\.cubin", text) == ["sm_87", "sm_90", "sm_110"]
    assert re.findall(r"PTX file.*\.(sm_\d+)\.ptx", text) == ["sm_80"]


def test_no_kernel_spills(fatbin):
    resources = list(read_resources(fatbin.log))
    assert {one.architecture for one in resources} == {"sm_87", "sm_90", "sm_110"}
    assert [one for one in resources if one.spilled_bytes or one.stack_bytes] == []


def test_nvrtc_makes_the_same_kernels_for_orin(nvcc, nvrtc, fatbin, tmp_path):
    assert nvrtc.version == (12, 6)
    made = nvrtc.compile(sources.read_sources(KERNELS), ORIN)
    names = kernels_in(nvcc, made.image, tmp_path)
    assert sorted(3 * names) == sorted(kernels_in(nvcc, fatbin.image, tmp_path))
    assert sorted(names) == sorted(one.kernel for one in read_resources(made.log))
    assert {one.architecture for one in read_resources(made.log)} == {"sm_87"}


def test_the_kernel_that_reads_spills_nothing(nvcc, nvrtc):
    module = sources.read_sources("read", Path(reading.__file__).parent)
    for made in (nvcc.compile(module, (9, 0)), nvrtc.compile(module, ORIN)):
        assert [one.spilled_bytes for one in read_resources(made.log)] == [0, 0, 0]


def test_every_kernel_is_in_the_module():
    files = {path.name for path in sources.FOLDER.glob("*.cu")} - {f"{KERNELS}.cu"}
    assert files == set(re.findall(r'#include "(\w+\.cu)"', (sources.FOLDER / f"{KERNELS}.cu").read_text()))


def test_spills_are_counted(nvcc, tmp_path):
    (tmp_path / "crowded.cu").write_text(SPILLING)
    (one,) = read_resources(nvcc.compile(sources.read_sources("crowded", tmp_path), ORIN).log)
    assert (one.kernel, one.architecture, one.registers) == ("crowded", "sm_87", 64)
    assert one.spilled_bytes > 0
    assert f"64, {one.spilled_bytes} B spilled" in prebuilding.table([one])[1]


def test_shared_memory_is_read_beside_registers():
    log = """
ptxas info    : Compiling entry function 'first' for 'sm_90'
ptxas info    : Function properties for first
    8 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 1024 bytes smem, 380 bytes cmem[0]
"""
    assert list(read_resources(log)) == [("first", "sm_90", 40, 8, 28, 1024)]


def test_a_log_that_was_cut_is_refused():
    with pytest.raises(ValueError, match="first for sm_90"):
        list(read_resources("ptxas info    : Compiling entry function 'first' for 'sm_90'\n"))


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize("toolkit", ["cu13", "cuda_nvrtc"])
def test_an_image_is_compiled_once(installed, small, monkeypatch, toolkit):
    monkeypatch.setenv("CUDA_HOME", str(installed / toolkit))
    first = load_image("small", ORIN, folder=small)
    assert first.startswith(b"\x7fELF")
    assert [path.read_bytes() for path in compiler.cache_folder().iterdir()] == [first]
    for kind in (Nvcc, Nvrtc):
        monkeypatch.setattr(kind, "compile", lambda *_: pytest.fail("compiled again"))
    assert load_image("small", ORIN, folder=small) == first


@pytest.mark.usefixtures("nothing_installed")
def test_other_content_compiler_or_architecture_is_compiled_anew(installed, small, monkeypatch):
    monkeypatch.setenv("CUDA_HOME", str(installed / "cuda_nvrtc"))
    first = load_image("small", ORIN, folder=small)
    load_image("small", (9, 0), folder=small)
    (small / "factor.cuh").write_text("constexpr float kFactor = 3;\n")
    assert load_image("small", ORIN, folder=small) != first
    monkeypatch.setenv("CUDA_HOME", str(installed / "cu13"))
    load_image("small", ORIN, folder=small)
    assert len({path.read_bytes() for path in compiler.cache_folder().iterdir()}) == 4


@pytest.mark.usefixtures("nothing_installed")
def test_a_compiler_that_does_not_know_the_gpu_gives_way_to_one_that_does(installed, small, monkeypatch):
    monkeypatch.setenv("CUDA_HOME", str(installed / "cuda_nvrtc"))
    monkeypatch.setenv("CUDA_PATH", str(installed / "cu13"))
    load_image("small", THOR, folder=small)
    (kept,) = compiler.cache_folder().iterdir()
    assert "nvcc13.0-sm_110" in kept.name


@pytest.mark.usefixtures("nothing_installed")
def test_a_driver_gets_nothing_of_a_newer_release(installed, small, monkeypatch):
    monkeypatch.setenv("CUDA_HOME", str(installed / "cu13"))
    with pytest.raises(MissingExtraError, match=r"compiler of CUDA 12 or older.*nvidia-cuda-nvrtc-cu12"):
        load_image("small", ORIN, driver=(12, 6), folder=small)
    monkeypatch.setenv("CUDA_PATH", str(installed / "cuda_nvrtc"))
    load_image("small", ORIN, driver=(12, 6), folder=small)
    (kept,) = compiler.cache_folder().iterdir()
    assert "NVRTC12.6-sm_87" in kept.name


@pytest.mark.usefixtures("nothing_installed")
def test_without_a_compiler_the_error_says_what_is_missing(small):
    with pytest.raises(MissingExtraError, match=r"capability 8\.7.*expected NVRTC or nvcc") as caught:
        load_image("small", ORIN, folder=small)
    assert "\n" not in str(caught.value)
    assert not compiler.cache_folder().exists()


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize("toolkit", ["cu13", "cuda_nvrtc"])
def test_a_source_with_an_error_is_named_with_its_line(installed, small, monkeypatch, toolkit):
    monkeypatch.setenv("CUDA_HOME", str(installed / toolkit))
    (small / "factor.cuh").write_text("constexpr float kFactor = two;\n")
    with pytest.raises(CompileError, match=r"factor\.cuh.*1.*two") as caught:
        load_image("small", ORIN, folder=small)
    assert "\n" not in str(caught.value)
    assert not compiler.cache_folder().exists()


@pytest.mark.usefixtures("nothing_installed")
def test_built_images_need_no_compiler_and_stale_ones_are_left_alone(installed, small, monkeypatch):
    monkeypatch.setenv("CUDA_HOME", str(installed / "cuda_nvrtc"))
    monkeypatch.setenv("CUDA_PATH", str(installed / "cu13"))
    built = {one.suffix: made.image for one, made in prebuilding.prebuild(sources.read_sources("small", small))}
    monkeypatch.delenv("CUDA_HOME")
    monkeypatch.delenv("CUDA_PATH")
    assert load_image("small", ORIN, driver=(12, 6), folder=small) == built["cuda12.cubin"]
    assert load_image("small", THOR, driver=(13, 0), folder=small) == built["cuda13.fatbin"]
    assert load_image("small", ADA, folder=small) == built["cuda13.fatbin"], "for its PTX"
    for arch, driver in ((THOR, (12, 9)), ((7, 5), (13, 0))):
        with pytest.raises(MissingExtraError):
            load_image("small", arch, driver=driver, folder=small)
    assert not compiler.cache_folder().exists()
    (small / "factor.cuh").write_text("constexpr float kFactor = 3;\n")
    with pytest.raises(MissingExtraError):
        load_image("small", ORIN, folder=small)


@pytest.mark.usefixtures("nothing_installed")
def test_building_replaces_the_images_of_earlier_sources(installed, small, monkeypatch):
    monkeypatch.setenv("CUDA_HOME", str(installed / "cuda_nvrtc"))
    monkeypatch.setenv("CUDA_PATH", str(installed / "cu13"))
    for factor in (2, 3):
        (small / "factor.cuh").write_text(f"constexpr float kFactor = {factor};\n")
        written = [one.path(sources.read_sources("small", small)) for one, _ in _built(small)]
        assert sorted(small.glob("small-*")) == sorted(written)


def _built(folder):
    return list(prebuilding.prebuild(sources.read_sources("small", folder)))


@pytest.mark.usefixtures("nothing_installed")
def test_a_cache_that_cannot_be_written_is_named(installed, small, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("CUDA_HOME", str(installed / "cuda_nvrtc"))
    with pytest.raises(InputError, match="file/flawline/kernels cannot be written"):
        load_image("small", ORIN, folder=small)


def test_a_missing_source_is_named(tmp_path):
    with pytest.raises(InputError, match=r"absent\.cu cannot be read"):
        sources.read_sources("absent", tmp_path)
