"""Frames to anomaly maps and scores on a GPU, by the interface of `flawline.runtime.frame_scorer.FrameScorer`."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import DeviceError, FlawlineError, InputError, ResourceError
from flawline.runtime.extractor import require_frame
from flawline.runtime.frame_scorer import require_finite, require_frames
from flawline.runtime.gpu.device import Device, abandon
from flawline.runtime.gpu.pipeline import STAGES, EngineOpener, Pipeline
from flawline.runtime.gpu.room import require_room
from flawline.runtime.gpu.scoring import Scoring


class GpuScorer:
    """Frames to anomaly maps and scores, which are all that comes back from the GPU.

    Everything is allocated here, before the first frame, but what the sizes of frames decide (see `Pipeline`) and the
    one map per frame that is handed out. A scorer may be used from any thread, by one at a time.

    Args:
        device: The GPU.
        scoring: The kernels of the detector, one class for each kind.
        open_engine: Loads the network.
        batch: Most frames that are scored at once.

    Attributes:
        backend: Name of the engine that runs.
        timings_ns: Nanoseconds that each stage of the last call took.

    Raises:
        DeviceError: The GPU cannot do this, or it failed.
        ResourceError: The GPU has too little memory; the message says what would help.
        FlawlineError: The engine cannot be had.
    """

    def __init__(
        self,
        device: Device,
        scoring: Scoring,
        open_engine: EngineOpener,
        *,
        batch: int = 1,
    ) -> None:
        if batch < 1:
            raise InputError(f"batch is {batch}; expected 1 or more frames")
        self._batch = batch
        self._channels = scoring.manifest.input.channels
        self._device = device
        with device.current("while it was set up"):
            require_room(device, scoring, batch)
            self._pipeline: Pipeline | None = Pipeline(device, scoring, open_engine, batch)
        self.backend = self._pipeline.engine.name
        self.timings_ns = dict.fromkeys(STAGES, 0)

    @property
    def graph_refused(self) -> str | None:
        """Why frames are launched piece by piece for good; None while a CUDA graph may still be had."""
        return self._open_pipeline().graph_refused

    def __call__(self, frame: npt.NDArray[np.uint8]) -> tuple[float, npt.NDArray[np.float32]]:
        """Scores a frame; see `flawline.runtime.frame_scorer.FrameScorer`."""
        scores, maps = self.batch([frame])
        return scores[0], maps[0]

    def batch(self, frames: Sequence[npt.NDArray[np.uint8]]) -> tuple[list[float], npt.NDArray[np.float32]]:
        """Scores several frames, for which the model is read once.

        Args:
            frames: One to `batch` frames, each as for a single one; the network always runs on `batch`.

        Returns:
            The scores and the anomaly maps, float32 (B, h, w): one array of their own.

        Raises:
            InputError: A frame is not of that form, or there are too many or none.
            ResourceError: There is no memory for frames of that size.
            DeviceError: The GPU failed. The scorer is closed then.
            FlawlineError: A score is not finite, or the scorer is closed.
        """
        pipeline = self._open_pipeline()
        require_frames(frames, self._batch)
        checked = [require_frame(frame, self._channels) for frame in frames]
        try:
            with self._device.current("on a frame"):
                program = pipeline.program(tuple(frame.shape for frame in checked))
                maps, scores = (array.copy() for array in pipeline.run(program, checked))
                self.timings_ns.update(pipeline.timings_ns())
        except (InputError, ResourceError):
            raise  # Nothing has run.
        except FlawlineError as error:
            self.close()
            if self._device.lost:
                raise  # To open the bundle again would not help.
            raise DeviceError(f"{error}; the detector is closed: open the bundle again") from error
        require_finite(scores)
        return scores.tolist(), maps

    def close(self) -> None:
        """Frees everything on the GPU; closing again does nothing."""
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is None:
            return
        try:
            with self._device.current("while it was closed"):
                pipeline.close()
        except DeviceError:
            # It is lost, and with it what was to be freed.
            abandon(pipeline)

    def __enter__(self) -> "GpuScorer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open_pipeline(self) -> Pipeline:
        if self._pipeline is None:
            self._device.require()  # to open the bundle again would not help where it is lost
            raise FlawlineError("the detector is closed; open the bundle again")
        return self._pipeline
