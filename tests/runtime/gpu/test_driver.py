"""What is said where there is no GPU, or none that serves."""

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from flawline.runtime import DeviceError, MissingExtraError
from flawline.runtime.gpu import driver
from flawline.runtime.gpu.device import Device
from tests.emulation.standin import StandIn


def test_a_machine_without_a_driver_is_told_before_pycuda_is_imported() -> None:
    code = textwrap.dedent("""
        import sys
        from flawline.runtime.gpu import device, driver
        driver.LIBRARY = "libcuda_of_no_machine.so.1"
        try:
            device.Device()
        except Exception as error:
            print(type(error).__name__, error)
        print("pycuda" in sys.modules)
    """)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    line, imported = run.stdout.splitlines()
    assert line.startswith("MissingExtraError no NVIDIA driver: libcuda_of_no_machine.so.1")
    assert "expected a machine with an NVIDIA GPU and its driver" in line
    assert imported == "False"


def test_pycuda_that_is_missing_names_its_extra(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    from flawline.runtime.extras import LazyModule

    absent = LazyModule("pycuda_of_no_machine", "pip install 'flawline[tensorrt]'")
    monkeypatch.setattr("flawline.runtime.gpu.device.cuda", absent)
    with pytest.raises(MissingExtraError, match=r"pip install 'flawline\[tensorrt\]'"):
        Device()


def test_a_driver_that_is_too_old_is_named_with_what_is_expected(standin: StandIn) -> None:
    standin.reset(driver_version=11020)
    with pytest.raises(DeviceError, match=r"supports CUDA 11\.2; expected 11\.4 or newer: update the driver"):
        Device()


def test_a_driver_without_a_gpu_says_so(standin: StandIn) -> None:
    standin.reset(devices=0)
    with pytest.raises(DeviceError, match="finds no GPU that works: cuInit: no CUDA-capable device is detected"):
        Device()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (34, r"stub\.so is the stub that CUDA programs are linked with; expected the NVIDIA driver: .*LD_LIBRARY_PATH"),
        (999, "the NVIDIA driver finds no GPU that works: cuDriverGetVersion: error 999"),
    ],
)
def test_a_library_that_only_fails_is_told_in_a_line(
    code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the stub of the CUDA toolkit does, which knows no text of any error either."""
    if shutil.which("cc") is None:
        pytest.skip("a C compiler makes the library")
    names = ("cuDriverGetVersion", "cuInit", "cuGetErrorString")
    source = "".join(f"int {name}(void) {{ return {code}; }}\n" for name in names)
    library = tmp_path / "stub.so"
    command = ["cc", "-shared", "-fPIC", "-o", str(library), "-x", "c", "-"]
    subprocess.run(command, input=source, text=True, check=True)
    monkeypatch.setattr(driver, "LIBRARY", str(library))
    driver.find_driver.cache_clear()
    with pytest.raises(DeviceError, match=words):
        Device()
    driver.find_driver.cache_clear()


def test_a_gpu_that_does_not_exist_is_refused(standin: StandIn) -> None:
    with pytest.raises(DeviceError, match="the GPU cannot be opened: cuDeviceGet failed"):
        Device(3)


def test_what_the_driver_says_of_itself_is_kept(standin: StandIn) -> None:
    standin.reset(driver_version=12060, arch=110, integrated=1)
    device = Device()
    assert (device.driver.version, device.arch, device.integrated) == ((12, 6), (11, 0), True)
    assert (device.name, device.multiprocessors, device.total_bytes) == ("stand-in for a GPU", 16, 8 << 30)


def test_a_call_that_fails_names_itself_and_its_code(standin: StandIn) -> None:
    standin.reset(fail="cuDeviceGetCount@1=46")
    with pytest.raises(driver.DriverError, match=r"^cuDeviceGetCount: CUDA-capable device\(s\) is/are busy") as caught:
        driver.find_driver().call("cuDeviceGetCount", None)
    assert caught.value.code == 46
