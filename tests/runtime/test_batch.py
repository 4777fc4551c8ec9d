"""Several frames at once score as each does alone."""

from pathlib import Path

import numpy as np
import pytest

from flawline.runtime import Detector, FlawlineError, InputError
from flawline.runtime.images import list_images, read_image


@pytest.fixture
def frames(good_images: Path) -> list[np.ndarray]:
    return [read_image(path) for path in list_images(good_images)[:5]]


def test_a_batch_gives_what_its_frames_give(engine: str, tiny_bundle: Path, frames: list[np.ndarray]) -> None:
    with (
        Detector.open(tiny_bundle, backend=engine) as alone,
        Detector.open(tiny_bundle, backend=engine, batch=3) as many,
    ):
        many.threshold = alone.threshold = 1.0
        expected = [alone(frame) for frame in frames]
        received = [*many.batch(frames[:3]), *many.batch(frames[3:])]
    for one, other in zip(received, expected, strict=True):
        assert one.score == pytest.approx(other.score, rel=1e-5)
        np.testing.assert_allclose(one.map, other.map, rtol=1e-4)
        assert (one.p_value, one.verdict, len(one.regions)) == (other.p_value, other.verdict, len(other.regions))


def test_results_of_a_batch_outlive_the_next(tiny_bundle: Path, frames: list[np.ndarray]) -> None:
    with Detector.open(tiny_bundle, backend="onnxruntime", batch=2) as detector:
        first = detector.batch(frames[:2])
        before = [result.map.copy() for result in first]
        detector.batch(frames[2:4])
    for result, kept in zip(first, before, strict=True):
        np.testing.assert_array_equal(result.map, kept)


@pytest.mark.parametrize("count", [0, 3])
def test_too_many_frames_or_none_are_refused(count: int, tiny_bundle: Path, frames: list[np.ndarray]) -> None:
    with (
        Detector.open(tiny_bundle, backend="onnxruntime", batch=2) as detector,
        pytest.raises(InputError, match=f"{count} frames at once; expected 1 to 2"),
    ):
        detector.batch(frames[:count])


def test_a_batch_of_none_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(InputError, match="batch is 0; expected 1 or more"):
        Detector.open(tiny_bundle, backend="onnxruntime", batch=0)


def test_a_frame_of_a_batch_without_a_finite_score_is_named(make_bundle, graph, tmp_path: Path) -> None:
    side = 16
    path = make_bundle(tmp_path / "log.flaw", features=graph(side, side, "Log"), size=side, golden=()).path
    bright, dark = np.full((side, side), 50, np.uint8), np.zeros((side, side), np.uint8)
    with (
        Detector.open(path, backend="onnxruntime", batch=2) as detector,
        pytest.raises(FlawlineError, match="for frame 1 of the batch"),
    ):
        detector.batch([bright, dark])
