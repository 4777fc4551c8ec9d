"""The parity gate of a standalone file: in ONNX Runtime it must score frames as the bundle does."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flawline.export.calibrated import open_session, run_session
from flawline.export.parity import ParityError
from flawline.runtime.detector import Detector
from flawline.runtime.extractor import FeatureExtractor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flawline.runtime.bundle import Bundle

Frame = npt.NDArray[np.uint8]

TOLERANCE = 1e-4
"""Largest error of scores and maps, relative to the score, that passes against the detector on the same machine.

Network and factors are the same numbers in both, 8-bit and fp16 ones too; what differs is the order of sums in fp32.
"""


def check(model: bytes, bundle: Bundle, frames: Iterable[Frame] = (), *, threads: int = 1) -> dict[str, str | float]:
    """Compares a standalone file with its bundle and lets pass only what agrees.

    The golden frames must score as the bundle recorded, within its own tolerance; they and the further frames must
    score as its detector does here, within `TOLERANCE`. Verdicts must be those of the threshold.

    Args:
        model: Bytes of the standalone file.
        bundle: What it was made from.
        frames: Further frames, of any size that the bundle takes.
        threads: Threads of the engines.

    Returns:
        The reference, the number of frames, the largest errors and the tolerances.

    Raises:
        ParityError: An error is beyond its tolerance, a number is not finite, or a verdict is wrong.
        EngineError: ONNX Runtime refuses the file.
        InputError: A frame is not what the bundle takes.
    """
    golden_tolerance = bundle.manifest.golden.relative_tolerance
    golden_error = error = 0.0
    count = 0
    misjudged = []
    recorded = ((golden.frame, golden) for golden in bundle.golden)
    with (
        Standalone(model, bundle, threads=threads) as standalone,
        Detector(bundle, backend="onnxruntime", threads=threads) as detector,
    ):
        for frame, golden in itertools.chain(recorded, ((frame, None) for frame in frames)):
            score, anomaly_map, rejected = standalone(frame)
            expected = detector(frame)
            error = _worst(error, score, anomaly_map, expected.score, expected.map)
            if golden is not None:
                golden_error = _worst(golden_error, score, anomaly_map, golden.score, golden.map)
            if rejected != (score > detector.threshold):
                misjudged.append(f"{score:g}")
            count += 1
    for name, worst, tolerance in (("golden scores", golden_error, golden_tolerance), ("detector", error, TOLERANCE)):
        if not worst <= tolerance:
            raise ParityError(
                f"the standalone file does not score like the bundle's {name}: largest relative error {worst:.2g} on "
                f"{count} frames, tolerance {tolerance:g}; nothing was written"
            )
    if misjudged:
        raise ParityError(
            f"the standalone file judges scores of {', '.join(misjudged)} otherwise than by the threshold of "
            f"{bundle.manifest.threshold.score:g}; nothing was written"
        )
    return {
        "reference": f"the detector and {len(bundle.golden)} golden frames of bundle {bundle.hash[:12]}",
        "images": count,
        "relative_error_max": error,
        "tolerance": TOLERANCE,
        "golden_relative_error_max": golden_error,
        "golden_tolerance": golden_tolerance,
    }


class Standalone:
    """A standalone file in ONNX Runtime, with the resize that it leaves to its user. Use it as a context manager.

    Args:
        model: Bytes of the file.
        bundle: What it was made from, which says how frames are resized.
        threads: Threads that compute.

    Raises:
        EngineError: ONNX Runtime refuses the file.
    """

    def __init__(self, model: bytes, bundle: Bundle, *, threads: int = 1) -> None:
        manifest = bundle.padim
        self._session = open_session(model, threads, "the standalone file")
        self._planar = manifest.input.layout == "nchw"
        # Only its resize is used.
        self._extractor = FeatureExtractor(
            bundle.features,
            manifest.input,
            manifest.network,
            manifest.output_channels,
            backend="onnxruntime",
            threads=threads,
        )

    def __call__(self, frame: Frame) -> tuple[float, npt.NDArray[np.float32], bool]:
        """Score, anomaly map and whether the frame is rejected.

        Args:
            frame: uint8 (height, width) or (height, width, 3), RGB.

        Raises:
            InputError: The frame is not what the bundle takes.
        """
        self._extractor.load(0, frame)
        pixels = self._extractor.pixels
        outputs = self.run(pixels.transpose(0, 3, 1, 2) if self._planar else pixels)
        return float(outputs["score"][0]), outputs["map"][0], bool(outputs["verdict"][0])

    def run(self, batch: Frame) -> dict[str, npt.NDArray[Any]]:
        """The file's outputs by name, for frames of the network's size in the layout of its input.

        Raises:
            EngineError: ONNX Runtime fails.
        """
        names = [output.name for output in self._session.get_outputs()]
        values = run_session(self._session, names, np.ascontiguousarray(batch), "the standalone file")
        return dict(zip(names, values, strict=True))

    def close(self) -> None:
        """Frees the engine of the resize; closing again does nothing."""
        self._extractor.close()

    def __enter__(self) -> Standalone:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _worst(
    so_far: float,
    score: float,
    anomaly_map: npt.NDArray[np.float32],
    expected: float,
    expected_map: npt.NDArray[np.float32],
) -> float:
    """The largest error yet, relative to the expected score; NaN once there was one."""
    scale = max(expected, float(np.finfo(np.float32).tiny))
    errors = (so_far, abs(score - expected) / scale, float(np.abs(anomaly_map - expected_map).max()) / scale)
    return float(np.max(errors))
