"""The context of a GPU is current while a block works with it, and never afterwards."""

import subprocess
import sys
import textwrap
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from flawline.runtime import DeviceError, FlawlineError
from flawline.runtime.gpu.buffers import Buffers
from flawline.runtime.gpu.device import Device, cuda
from flawline.runtime.gpu.stream import Stream
from tests.emulation.standin import StandIn


def current(standin: StandIn) -> int:
    return standin.live["contexts in this thread"]


def test_the_context_is_current_inside_the_block_alone(standin: StandIn) -> None:
    device = Device()
    assert current(standin) == 0
    with device.current("here"):
        assert current(standin) == 1
    assert current(standin) == 0


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_in_the_block_leaves_no_context(error: type[BaseException], standin: StandIn) -> None:
    with pytest.raises(error), Device().current("here"):
        raise error
    assert current(standin) == 0


def test_every_thread_has_its_own(standin: StandIn) -> None:
    device = Device()
    seen = []

    def work() -> None:
        seen.append(current(standin))
        with device.current("in a thread"):
            seen.append(current(standin))
        seen.append(current(standin))

    with device.current("here"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert seen == [0, 1, 0]


def test_memory_taken_in_one_thread_is_given_back_in_another(standin: StandIn) -> None:
    device = Device()
    with device.current("here"):
        stream = Stream()
        buffers = Buffers(device, stream)
        buffers.allocate(100)

    def work() -> None:
        with device.current("in a thread"):
            buffers.free()
            stream.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert standin.live["allocations"] == 0


def test_what_the_gpu_refuses_says_what_was_being_done(standin: StandIn) -> None:
    standin.reset(fail="cuMemGetInfo@1=46")
    device = Device()
    words = "the GPU failed in a test: cuMemGetInfo failed: CUDA-capable device"
    with pytest.raises(DeviceError, match=words), device.current("in a test"):
        device.memory_bytes()


@pytest.mark.parametrize("code", [700, 702, 709, 710, *range(713, 720)])
def test_a_gpu_whose_context_is_dead_is_lost_to_the_process(code: int, standin: StandIn) -> None:
    standin.reset(fail=f"cuMemGetInfo@1={code}")
    device = Device()
    advice = "it is lost to this process: end the process and start it again"
    words = f"^the GPU failed in a test: cuMemGetInfo failed: .*; {advice}$"
    with pytest.raises(DeviceError, match=words), device.current("in a test"):
        device.memory_bytes()
    # It does not come back with what made it fail gone.
    standin.reset()
    for again in (Device, lambda: device.current("again").__enter__()):
        with pytest.raises(DeviceError, match=f"^GPU 0 has failed; {advice}$"):
            again()
    # Nothing is asked of the driver for that.
    assert standin.calls("cuInit") == standin.calls("cuCtxPushCurrent") == 0
    standin.restart()


def test_a_gpu_is_lost_whoever_noticed(standin: StandIn) -> None:
    standin.reset(fail="cuMemGetInfo@1=719")
    device = Device()

    def fail() -> None:
        with suppress(cuda.Error):
            device.memory_bytes()
        raise FlawlineError("the engine failed")

    with pytest.raises(DeviceError, match="the engine failed; it is lost to this process"), device.current("in a test"):
        fail()
    standin.restart()


@pytest.mark.parametrize("code", [2, 701, 900, 901])
def test_a_gpu_that_refused_something_goes_on(code: int, standin: StandIn) -> None:
    # What is said of captures and of memory may be said to whoever asks whether it is lost as well.
    standin.reset(fail=f"cuMemGetInfo@1={code}" + (f",cuCtxSynchronize@1={code}" if code != 701 else ""))
    device = Device()
    words = r"^the GPU failed in a test: cuMemGetInfo failed: [^;]*$"
    with pytest.raises(DeviceError, match=words), device.current("in a test"):
        device.memory_bytes()
    assert not device.lost
    with Device().current("again"):
        pass


@pytest.mark.parametrize("lost", [False, True])
def test_a_process_ends_cleanly_whatever_it_left_open(lost: bool, standin_library: Path) -> None:
    code = textwrap.dedent(f"""
        import ctypes, os, sys, threading
        standin = ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL)
        from flawline.runtime import DeviceError
        from flawline.runtime.gpu.buffers import Buffers
        from flawline.runtime.gpu.device import Device
        from flawline.runtime.gpu.stream import Stream

        def work():
            device = Device()
            try:
                with device.current("here"):
                    left = Buffers(device, Stream())
                    left.allocate(100)
                    if {lost}:
                        os.environ["STANDIN_FAIL"] = "cuMemGetInfo@1=719!"
                        standin.standin_reset()
                        device.memory_bytes()
            except DeviceError as error:
                print(error)
            return left

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        kept = None if {lost} else work()
        print("done")
    """)
    run = subprocess.run(
        [sys.executable, "-c", code, str(standin_library)], capture_output=True, text=True, check=False, timeout=60
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "done"
    assert "context stack was not empty" not in run.stderr
