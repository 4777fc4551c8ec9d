"""The context of a GPU is current while a block works with it, and never afterwards."""

import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from flawline.runtime import DeviceError
from flawline.runtime.gpu.buffers import Buffers
from flawline.runtime.gpu.device import Device
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


def test_a_lost_gpu_leaves_no_context_behind(standin: StandIn) -> None:
    standin.reset(fail="cuMemGetInfo@1=719!")
    device = Device()
    words = "in a test: cuMemGetInfo failed: unspecified launch failure"
    with pytest.raises(DeviceError, match=words), device.current("in a test"):
        device.memory_bytes()
    standin.replace()
    with Device().current("after another has come"):
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
