"""Work that is captured once and launched as a whole."""

import gc
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from flawline.runtime.gpu.buffers import Buffers, Exchange
from flawline.runtime.gpu.device import Device, cuda
from flawline.runtime.gpu.driver import DriverError
from flawline.runtime.gpu.graph import Events, Graph
from flawline.runtime.gpu.stream import Stream
from tests.emulation.standin import StandIn

COUNT = 5


class Bench:
    """A stream with an array that goes to the GPU and comes back, doubled byte by byte on the way, as it were."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.stream = Stream()
        self.buffers = Buffers(device, self.stream)
        self.events = Events(device.driver, self.stream, 3)
        self.sent: Exchange = self.buffers.exchange((COUNT,), np.uint8)
        self.received: Exchange = self.buffers.exchange((COUNT,), np.uint8)

    def enqueue(self, *, captured: bool = True) -> None:
        self.events.record(0, captured=captured)
        self.sent.upload(COUNT)
        self.events.record(1, captured=captured)
        cuda.memcpy_dtod_async(self.received.address, self.sent.address, COUNT, self.stream.pycuda)
        self.received.download(COUNT)
        self.events.record(2, captured=captured)

    def close(self) -> None:
        self.events.close()
        self.buffers.free()
        self.stream.close()


@pytest.fixture
def bench(standin: StandIn) -> Iterator[Bench]:
    device = Device()
    with device.current("in a test"):
        made = Bench(device)
        yield made
        made.close()


def test_a_graph_does_its_work_at_every_launch_and_none_before(bench: Bench) -> None:
    bench.received.host[:] = 7
    graph = Graph(bench.device.driver, bench.stream, bench.enqueue)
    bench.stream.synchronize()
    np.testing.assert_array_equal(bench.received.host, 7)
    for value in (1, 2):
        bench.sent.host[:] = value
        graph.launch()
        bench.stream.synchronize()
        np.testing.assert_array_equal(bench.received.host, value)
    graph.close()


def test_events_in_a_graph_are_timed_anew_at_every_launch(bench: Bench, standin: StandIn) -> None:
    graph = Graph(bench.device.driver, bench.stream, bench.enqueue)
    for _ in range(2):
        graph.launch()
        bench.stream.synchronize()
        times_ns = bench.events.elapsed_ns()
        assert len(times_ns) == 2
        assert min(times_ns) >= 0
    graph.close()


@pytest.mark.parametrize("name", ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate"])
def test_a_driver_that_cannot_says_which_call_and_leaves_the_stream_as_it_was(
    name: str, bench: Bench, standin: StandIn
) -> None:
    standin.reset(fail=f"{name}@1=801")
    with pytest.raises(DriverError, match=f"{name}.*operation not supported"):
        Graph(bench.device.driver, bench.stream, bench.enqueue)
    assert works(bench, 3)


def wait(bench: Bench) -> None:
    bench.stream.synchronize()


def allocate(bench: Bench) -> None:
    bench.buffers.allocate(1)


def works(bench: Bench, value: int) -> bool:
    bench.sent.host[:] = value
    bench.enqueue(captured=False)
    bench.stream.synchronize()
    return bool((bench.received.host == value).all())


@pytest.mark.parametrize("forbidden", [wait, allocate])
def test_work_that_cannot_be_captured_ends_the_capture(forbidden: Callable[[Bench], None], bench: Bench) -> None:
    def enqueue() -> None:
        bench.enqueue()
        forbidden(bench)

    with pytest.raises(cuda.LogicError, match="operation not permitted when stream is capturing"):
        Graph(bench.device.driver, bench.stream, enqueue)
    assert works(bench, 4)


def test_an_error_of_our_own_ends_the_capture(bench: Bench) -> None:
    def enqueue() -> None:
        bench.enqueue()
        raise KeyError

    with pytest.raises(KeyError):
        Graph(bench.device.driver, bench.stream, enqueue)
    assert works(bench, 5)


def test_garbage_that_uses_the_gpu_as_it_goes_spoils_no_capture(bench: Bench) -> None:
    left = [cuda.mem_alloc(1)]

    def enqueue() -> None:
        bench.enqueue()
        cycle: list[object] = [left.pop()]
        cycle.append(cycle)
        del cycle
        # So many containers that a collection is due, and more than one.
        containers: list[list[int]] = [[] for _ in range(50 * gc.get_threshold()[0])]
        assert containers

    Graph(bench.device.driver, bench.stream, enqueue).close()
    assert gc.isenabled()
    gc.collect()
    assert works(bench, 6)


def test_a_capture_leaves_the_work_of_other_threads_alone(bench: Bench) -> None:
    def enqueue() -> None:
        bench.enqueue()
        thread = threading.Thread(target=allocate_elsewhere)
        thread.start()
        thread.join()

    problems: list[Exception] = []

    def allocate_elsewhere() -> None:
        try:
            with bench.device.current("in another thread"):
                buffers = Buffers(bench.device, bench.stream)
                cuda.memset_d8(buffers.allocate(1), 0, 1)
                cuda.Context.synchronize()
                buffers.free()
        except Exception as error:  # noqa: BLE001 - a thread that fails would say so to nobody
            problems.append(error)

    Graph(bench.device.driver, bench.stream, enqueue).close()
    assert problems == []
