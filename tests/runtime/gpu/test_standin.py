"""The stand-in driver finds what a program does wrongly, or it proves nothing."""

import ctypes
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from flawline.runtime.gpu.device import Device, cuda
from flawline.runtime.gpu.driver import find_driver
from flawline.runtime.kernels.cuda.image_calls import preprocess
from tests.emulation.build import build
from tests.emulation.standin import StandIn

SETUP = """
import ctypes, sys
from pathlib import Path
import numpy as np
from tests.emulation.standin import StandIn
standin = StandIn(Path(sys.argv[1]))
standin.reset()
import pycuda.driver as cuda
from flawline.runtime.gpu.device import Device
device = Device()
"""


def run(code: str, library: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SETUP + textwrap.dedent(code), str(library), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=Path(__file__).parents[3],
    )


MISUSES = {
    "memory is freed twice": (
        "a = cuda.mem_alloc(8); p = int(a); a.free(); driver.cuMemFree_v2(ctypes.c_void_p(p))",
        "freed twice",
    ),
    "what is freed was never allocated": ("driver.cuMemFree_v2(ctypes.c_void_p(4096))", "had not been allocated"),
    "a copy leaves its allocation": (
        "a = cuda.mem_alloc(8)\n    try: cuda.memcpy_htod(a, np.zeros(9, np.uint8))\n    except cuda.LogicError: pass",
        "a copy of 9 bytes leaves its allocation",
    ),
    "work goes to a stream that is gone": (
        "a = cuda.mem_alloc(8); s = cuda.Stream(); h = s.handle; del s\n"
        "    driver.cuMemsetD8Async(ctypes.c_void_p(int(a)), 0, ctypes.c_size_t(8), ctypes.c_void_p(h))",
        "a stream that does not exist",
    ),
    "a stream is destroyed with work in it": (
        "a = cuda.mem_alloc(8); s = cuda.Stream(); cuda.memset_d8_async(a, 0, 8, s); del s",
        "a stream was destroyed with work in it",
    ),
    "a function that is not there is called": ("driver.cuTexRefCreate(None)", "cuTexRefCreate is not in the stand-in"),
}


@pytest.mark.parametrize(("code", "words"), MISUSES.values(), ids=MISUSES)
def test_misuse_is_told(code: str, words: str, standin_library: Path) -> None:
    ran = run(
        f"""
driver = ctypes.CDLL("libcuda.so.1")
with device.current("in a test"):
    {code}
print(standin.misuses)
""",
        standin_library,
    )
    assert words in ran.stdout, ran.stderr


def test_memory_is_nan_until_it_is_written_and_after(standin_library: Path) -> None:
    ran = run(
        """
        with device.current("in a test"):
            a = cuda.mem_alloc(12)
            out = np.zeros(3, np.float32)
            cuda.memcpy_dtoh(out, a)
            print(np.isnan(out).all(), np.isnan(cuda.pagelocked_empty(3, np.float32)).all())
        """,
        standin_library,
    )
    assert ran.stdout.split() == ["True", "True"], ran.stderr


def test_a_host_that_touches_memory_of_the_device_ends_as_it_would_on_one(standin_library: Path) -> None:
    ran = run(
        """
        with device.current("in a test"):
            a = cuda.mem_alloc(12)
            print("before", flush=True)
            ctypes.string_at(int(a), 4)
            print("after", flush=True)
        """,
        standin_library,
    )
    assert (ran.stdout.split(), ran.returncode) == (["before"], -11)


def test_work_runs_when_somebody_waits_and_not_before(standin_library: Path) -> None:
    ran = run(
        """
        with device.current("in a test"):
            a, s = cuda.mem_alloc(4), cuda.Stream()
            out = cuda.pagelocked_empty(4, np.uint8)
            out[:] = 9
            cuda.memset_d8_async(a, 5, 4, s)
            cuda.memcpy_dtoh_async(out, a, s)
            early = out.tolist()
            s.synchronize()
            print(early, out.tolist(), standin.misuses)
        """,
        standin_library,
    )
    assert ran.stdout.strip() == "[9, 9, 9, 9] [5, 5, 5, 5] []", ran.stderr


BROKEN = {
    "memory that was freed": ("freed.free()", 0, "an illegal memory access was encountered", ""),
    "memory past the end": ("", 4096, "an illegal memory access was encountered", ""),
    "bytes beside an array": ("", 3, "", "something was written beside an allocation of 13 bytes"),
}


@pytest.mark.parametrize(("before", "shift", "error", "misuse"), BROKEN.values(), ids=BROKEN)
def test_a_kernel_that_writes_where_it_must_not_is_found(
    before: str,
    shift: int,
    error: str,
    misuse: str,
    standin_library: Path,
    tmp_path: Path,
) -> None:
    source = tmp_path / "write.cu"
    source.write_text(
        "struct Job { unsigned char* target; };\n"
        "FLAWLINE_KERNEL(32, write, Job) { if (threadIdx.x < 13) job.target[threadIdx.x] = 1; }\n"
    )
    image = build(tmp_path, ["write.cu"], tmp_path)
    ran = run(
        f"""
        with device.current("in a test"):
            module = cuda.module_from_buffer(open(sys.argv[2], "rb").read())
            write = module.get_function("write").prepare("P")
            freed, s = cuda.mem_alloc(13), cuda.Stream()
            address = int(freed) + {shift}
            {before}
            write.prepared_async_call((1, 1, 1), (32, 1, 1), s, address)
            try:
                s.synchronize()
            except cuda.Error as error:
                print(error)
            print(standin.misuses)
        """,
        standin_library,
        str(image),
    )
    assert error in ran.stdout, ran.stderr
    assert misuse in ran.stdout, ran.stderr


@pytest.mark.parametrize("form", ["a buffer", "pointers"])
def test_parameters_are_taken_when_a_kernel_is_launched_in_either_form(
    form: str,
    standin: StandIn,
    kernels_image: bytes,
) -> None:
    with Device().current("in a test"):
        source, target, stream = cuda.mem_alloc(256), cuda.mem_alloc(256), cuda.Stream()
        cuda.memcpy_htod(source, np.arange(256, dtype=np.uint8))
        frame = {"channels": 1, "planar": False, "interpolation": "area"}
        kernel, launch, job = preprocess((16, 16), (16, 16), 1, lambda array: 0, **frame)
        job["pixels"]["source"], job["pixels"]["target"] = int(source), int(target)
        driver, module, function = find_driver(), ctypes.c_void_p(), ctypes.c_void_p()
        driver.call("cuModuleLoadData", ctypes.byref(module), kernels_image)
        driver.call("cuModuleGetFunction", ctypes.byref(function), module, kernel.encode())
        address = ctypes.c_void_p(job.ctypes.data)
        size = ctypes.c_size_t(job.nbytes)
        pointers = (ctypes.c_void_p * 1)(address)
        # CU_LAUNCH_PARAM_BUFFER_POINTER, _BUFFER_SIZE and _END.
        extra = (ctypes.c_void_p * 5)(1, address, 2, ctypes.addressof(size), 0)
        parameters = (pointers, None) if form == "pointers" else (None, extra)
        layout = (*launch.grid, *launch.block, launch.shared_bytes)
        driver.call("cuLaunchKernel", function, *layout, ctypes.c_void_p(stream.handle), *parameters)
        job["pixels"]["target"] = 0
        stream.synchronize()
        out = np.zeros(256, np.uint8)
        cuda.memcpy_dtoh(out, target)
        driver.call("cuModuleUnload", module)
        del stream
        source.free()
        target.free()
    np.testing.assert_array_equal(out, np.arange(256))


def test_a_launch_with_parameters_of_another_size_is_refused(standin_library: Path, tmp_path: Path) -> None:
    source = tmp_path / "nothing.cu"
    source.write_text("struct Job { int a, b; };\nFLAWLINE_KERNEL(32, nothing, Job) {}\n")
    ran = run(
        """
        with device.current("in a test"):
            module = cuda.module_from_buffer(open(sys.argv[2], "rb").read())
            nothing = module.get_function("nothing").prepare("P")
            for form, layout in (("ii", (32, 1, 1)), ("iii", (32, 1, 1)), ("ii", (2048, 1, 1))):
                nothing.prepare(form)
                try:
                    nothing.prepared_async_call((1, 1, 1), layout, None, *[1] * len(form))
                    print("taken")
                except cuda.Error as error:
                    print(error)
            print(standin.misuses)
        """,
        standin_library,
        str(build(tmp_path, ["nothing.cu"], tmp_path)),
    )
    taken, long, wide, misuses = ran.stdout.splitlines()
    assert taken == "taken"
    assert "invalid argument" in long
    assert "invalid argument" in wide
    assert "12 bytes of parameters; it takes 8" in misuses
    assert "a layout that no GPU takes" in misuses
