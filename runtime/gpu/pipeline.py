"""All that a detector has on a GPU: memory, kernels, the network's engine and the one stream that they work in."""

import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import FlawlineError
from flawline.runtime.extras import LazyModule
from flawline.runtime.gpu.buffers import Buffers
from flawline.runtime.gpu.device import Device, abandon, first_line
from flawline.runtime.gpu.engine import GpuEngine
from flawline.runtime.gpu.graph import Events, Graph
from flawline.runtime.gpu.module import Kernels
from flawline.runtime.gpu.programs import Program, Shapes, bytes_of, usual_bytes
from flawline.runtime.gpu.scoring import Addresses, Scoring, output_bytes
from flawline.runtime.gpu.stream import Stream

if TYPE_CHECKING:
    import pycuda.driver as cuda
else:
    cuda = LazyModule("pycuda.driver", "pip install 'flawline[tensorrt]'")

STAGES = ("load", "upload", "resize", "network", "kernel", "download")

MOST_PROGRAMS = 8
"""Programs that are kept: a camera needs one, a folder of images one for each size."""


CAPTURE_ATTEMPTS = 3
"""Captures that may fail before there are no more: what another library does meanwhile spoils one, but not every one."""


class EngineOpener(Protocol):
    """Loads the network into a GPU whose context is current."""

    def __call__(self, input_address: int, output_addresses: tuple[int, ...]) -> GpuEngine:
        """Hands in the memory that the engine reads and writes; see `GpuEngine`."""


class Pipeline:
    """Frames in pinned memory to maps and scores in pinned memory. Used only while the context of the GPU is current.

    Everything is allocated here, but what depends on the sizes of frames: tables, and more memory for frames that are
    larger than the good images were. That is allocated when such frames come first. Work on frames of the same sizes is
    captured into a CUDA graph when it comes for the second time, or at one of the next if that fails.

    Args:
        device: The GPU.
        scoring: The kernels of the detector.
        open_engine: Loads the network.
        batch: Most frames at once.

    Attributes:
        engine: The network's engine.
        graph_refused: Why work is launched piece by piece for good; None while a graph may still be had.

    Raises:
        FlawlineError: The engine, or what the parts need, cannot be had. Nothing is kept then.
    """

    def __init__(self, device: Device, scoring: Scoring, open_engine: EngineOpener, batch: int) -> None:
        self._device = device
        self._input = scoring.manifest.input
        self._programs: dict[Shapes, Program] = {}
        self._refusals = 0
        self._owned = ExitStack()
        try:
            self._open(scoring, open_engine, batch)
        except BaseException:
            if device.is_dead():
                abandon(self._owned)
            else:
                self._owned.close()
            raise
        self.graph_refused = None if self.engine.capturable else f"{self.engine.name} cannot be captured"

    def _open(self, scoring: Scoring, open_engine: EngineOpener, batch: int) -> None:
        own, manifest, frame_input = self._owned, scoring.manifest, scoring.manifest.input
        self._stream = Stream()
        own.callback(self._stream.close)
        self._kernels = Kernels(self._device)
        own.callback(self._kernels.close)
        self._events = Events(self._device.driver, self._stream, len(STAGES))
        own.callback(self._events.close)
        self._frames_memory, buffers = Buffers(self._device, self._stream), Buffers(self._device, self._stream)
        own.callback(buffers.free)
        self._maps = buffers.exchange((batch, manifest.map.height, manifest.map.width), np.float32)
        self._scores = buffers.exchange((batch,), np.float32, atomic=True)

        input_bytes = batch * frame_input.height * frame_input.width * frame_input.channels
        # Zeros, so that what is left of a batch when there are fewer frames is always the same.
        self._network_input = buffers.upload(np.zeros(input_bytes, np.uint8))
        outputs = tuple(buffers.allocate(size_bytes) for size_bytes in output_bytes(manifest, batch))
        addresses = Addresses(self._network_input, outputs, self._maps.address, self._scores.address)
        self._scoring = scoring.prepare(buffers, addresses, batch)

        own.callback(self._free_frames)
        self._take_frames(usual_bytes(frame_input, batch))
        self.engine = open_engine(self._network_input, outputs)
        own.callback(self.engine.close)
        # What it has run in the default stream meanwhile is not ordered before what runs here.
        self._device.driver.call("cuStreamSynchronize", None)

    def program(self, shapes: Shapes) -> Program:
        """What runs for frames of these shapes.

        Args:
            shapes: Of one to `batch` frames, (height, width) or (height, width, 3).

        Raises:
            InputError: They are of a size that cannot be brought to the network's.
            ResourceError: There is no memory for them.
        """
        program = self._programs.pop(shapes, None) or self._make(shapes)
        self._programs[shapes] = program
        return program

    def run(
        self, program: Program, frames: list[npt.NDArray[np.uint8]]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Scores frames.

        Args:
            program: What runs for frames of their shapes.
            frames: The frames.

        Returns:
            Maps, float32 (B, h, w), and scores, float32 (B,), both overwritten by the next call.

        Raises:
            FlawlineError: The engine failed.
        """
        start = time.perf_counter_ns()
        program.load(frames, self._frames.host)
        self._load_ns = time.perf_counter_ns() - start
        if program.graph is None and program.runs and self.graph_refused is None:
            self._capture(program)
        if program.graph is not None:
            program.graph.launch()
        else:
            self._enqueue(program)
        self._stream.synchronize()
        program.runs += 1
        return self._maps.host[: len(frames)], self._scores.host[: len(frames)]

    def timings_ns(self) -> dict[str, int]:
        """Nanoseconds that each of the stages of the last run took."""
        return dict(zip(STAGES, (self._load_ns, *self._events.elapsed_ns()), strict=True))

    def close(self) -> None:
        """Gives everything back, once what still runs has come to its end."""
        self._stream.synchronize()
        self._owned.close()

    def _enqueue(self, program: Program, *, captured: bool = False) -> None:
        stream, count = self._stream, program.count
        record = partial(self._events.record, captured=captured)
        record(0)
        self._frames.upload(program.frames_bytes)
        record(1)
        for kernel in program.resizing:
            kernel.enqueue(stream)
        record(2)
        self.engine.enqueue(stream.handle)
        record(3)
        cuda.memset_d32_async(self._scores.address, 0, count, stream.pycuda)
        for kernel in program.scoring:
            kernel.enqueue(stream)
        record(4)
        self._maps.download(count)
        self._scores.download(count)
        record(5)

    def _capture(self, program: Program) -> None:
        try:
            program.graph = Graph(self._device.driver, self._stream, partial(self._enqueue, program, captured=True))
        except (FlawlineError, cuda.Error) as error:
            # Nothing has run: what ails the GPU itself shows when the same work is launched piece by piece.
            self._refusals += 1
            if self._refusals == CAPTURE_ATTEMPTS:
                self.graph_refused = first_line(error)
        else:
            self._refusals = 0

    def _make(self, shapes: Shapes) -> Program:
        if len(self._programs) == MOST_PROGRAMS:
            self._programs.pop(next(iter(self._programs))).free()
        if (size_bytes := bytes_of(shapes)) > len(self._frames.host):
            self._take_frames(size_bytes)
        kernels, buffers = self._kernels, Buffers(self._device, self._stream)
        try:
            return Program(
                shapes, kernels, buffers, self._frames, self._input, self._network_input, self._scoring(len(shapes))
            )
        except BaseException:
            if self._device.is_dead():
                abandon(buffers)
            else:
                buffers.free()
            raise

    def _take_frames(self, size_bytes: int) -> None:
        """Takes memory for that much of frames, in place of what there was, which stays if there is none."""
        memory = Buffers(self._device, self._stream)
        frames = memory.exchange((size_bytes,), np.uint8)
        self._free_frames()
        self._frames, self._frames_memory = frames, memory

    def _free_frames(self) -> None:
        """Frees the memory of frames and all programs, which know where it is."""
        while self._programs:
            self._programs.popitem()[1].free()
        self._frames_memory.free()
