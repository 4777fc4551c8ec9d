"""Maps and scores by reconstruction are those of the NumPy reference, in every engine, layout and batch."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from flawline.runtime import Detector, FlawlineError, InputError, ResourceError, memory
from flawline.runtime.reconstruction_scorer import ReconstructionScorer
from tests.runtime import reconstructions
from tests.runtime.reconstructions import KINDS, expected_map, random_frames, reconstruction_bundle

FORMS = [(1, "nhwc"), (1, "nchw"), (3, "nchw")]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("channels", "layout"), FORMS)
def test_maps_and_scores_are_those_of_the_reference(
    channels: int, layout: str, kind: str, engine: str, tmp_path: Path
) -> None:
    path = reconstruction_bundle(tmp_path / "bundle", channels=channels, layout=layout).path
    frames = random_frames(5, channels=channels, seed=8)
    for threads, batch in ((1, 1), (2, 3)):
        with Detector.open(path, backend=engine, threads=threads, batch=batch, map=kind) as detector:
            results = [one for start in range(0, 5, batch) for one in detector.batch(frames[start : start + batch])]
        for result, frame in zip(results, frames, strict=True):
            expected = expected_map(frame, kind)
            assert result.map.dtype == np.float32
            np.testing.assert_allclose(result.map, expected, rtol=1e-4, atol=1e-4 * expected.max())
            assert result.score == result.map.max()
            assert result.threshold == reconstructions.THRESHOLDS[kind]


def test_a_frame_is_scored_the_same_alone_and_in_a_batch_bit_for_bit(engine: str, tmp_path: Path) -> None:
    path = reconstruction_bundle(tmp_path / "bundle").path
    frames = random_frames(4)
    with Detector.open(path, backend=engine) as alone, Detector.open(path, backend=engine, batch=4) as many:
        for one, other in zip([alone(frame) for frame in frames], many.batch(frames), strict=True):
            np.testing.assert_array_equal(one.map, other.map)
            assert one.score == other.score


def test_frames_of_another_size_are_resized_first(tmp_path: Path) -> None:
    path = reconstruction_bundle(tmp_path / "bundle").path
    frame = random_frames(1, size=(48, 40))[0]
    small = frame.reshape(24, 2, 20, 2).mean((1, 3))
    with Detector.open(path, backend="onnxruntime") as detector:
        found = detector(frame)
    np.testing.assert_allclose(found.map, (small / 4 - 16) ** 2, atol=0.3 * 64)
    assert found.map.shape == (24, 20)


@pytest.mark.parametrize("kind", KINDS)
def test_a_p_value_is_of_the_scores_by_that_map(kind: str, tmp_path: Path) -> None:
    path = reconstruction_bundle(tmp_path / "bundle").path
    with Detector.open(path, backend="onnxruntime", map=kind) as detector:
        threshold = reconstructions.THRESHOLDS[kind]
        assert [detector.p_value(share * threshold) for share in (0.2, 0.6, 1.1)] == [1, 3 / 5, 1 / 5]


def test_a_map_that_is_not_offered_is_refused(tmp_path: Path) -> None:
    path = reconstruction_bundle(tmp_path / "bundle", kinds=("pse", "error")).path
    with pytest.raises(InputError, match="the bundle offers no map 'saliency'; expected error or pse"):
        Detector.open(path, map="saliency")


def test_a_map_of_padim_cannot_be_chosen(through: Path) -> None:
    with pytest.raises(InputError, match="is a bundle of PaDiM, which has one kind of anomaly map; received 'pse'"):
        Detector.open(through, map="pse")


@pytest.mark.parametrize("backend", ["auto", "onnxruntime"])
def test_engines_are_tried_with_the_map_that_the_bundle_was_written_with(backend: str, tmp_path: Path) -> None:
    path = reconstruction_bundle(tmp_path / "bundle").path
    with Detector.open(path, backend=backend, map="saliency") as detector:
        assert detector(random_frames(1)[0]).score == pytest.approx(255 / 512, abs=2 / 512)


def test_a_reconstruction_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    opened = reconstruction_bundle(tmp_path / "bundle")
    broken = reconstructions.graph().replace(np.float32(16).tobytes(), np.float32(np.inf).tobytes())
    with (
        ReconstructionScorer(broken, opened.manifest, backend="onnxruntime") as scorer,
        pytest.raises(FlawlineError, match="the score is inf"),
    ):
        scorer(random_frames(1)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_takes_one_map_of_memory_and_gives_it_back(kind: str, tmp_path: Path) -> None:
    side, runs = 128, 100
    path = reconstruction_bundle(tmp_path / "bundle", size=(side, side)).path
    frames = [random_frames(1, size=(side + more, side))[0] for more in (0, 20)]
    with Detector.open(path, map=kind) as detector:
        detector.threshold = 1e9  # regions are looked for in rejects alone, and take memory of their own
        for frame in frames:
            detector(frame)
        peaks, afters = np.zeros((2, runs), np.int64)
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for number in range(runs):
                tracemalloc.reset_peak()
                detector(frames[number % 2])
                after, peak = tracemalloc.get_traced_memory()
                peaks[number], afters[number] = peak - before, after - before
        finally:
            tracemalloc.stop()
    assert peaks.max() < 4 * side * side + 40_000
    assert afters.max() < 40_000


def test_more_frames_than_memory_holds_are_refused(tmp_path: Path) -> None:
    path = reconstruction_bundle(tmp_path / "bundle").path
    with pytest.raises(ResourceError, match="a map of 24 x 20 positions"):
        Detector.open(path, backend="onnxruntime", batch=1 << 40)
    with pytest.raises(InputError, match="batch is 0; expected 1 or more"):
        Detector.open(path, backend="onnxruntime", batch=0)


@pytest.mark.parametrize(("channels", "layout"), FORMS)
@pytest.mark.parametrize("saliency", [False, True])
def test_room_for_all_that_is_held_is_asked_for(
    saliency: bool, channels: int, layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = reconstruction_bundle(
        tmp_path / "bundle", channels=channels, layout=layout, kinds=KINDS if saliency else ("pse", "error")
    )

    def scorer() -> ReconstructionScorer:
        return ReconstructionScorer(opened.features, opened.manifest, backend="onnxruntime", batch=3)

    with scorer() as first:
        extractor = first._extractor
        _, handed_out = first.batch(random_frames(3, channels=channels))
        held = [extractor.input, *extractor.maps, first._maps, handed_out]
        if extractor._resized is not None:
            held.append(extractor._resized)
        needed = sum(array.nbytes for array in held)
    monkeypatch.setattr(memory, "available_bytes", lambda: needed - 1)
    with pytest.raises(ResourceError, match="a map of 24 x 20 positions"):
        scorer()
    monkeypatch.setattr(memory, "available_bytes", lambda: needed)
    scorer().close()


def test_a_graph_that_gives_other_outputs_than_the_manifest_says_is_refused(engine: str, tmp_path: Path) -> None:
    opened = reconstruction_bundle(tmp_path / "bundle")
    for wrong in (
        reconstructions.graph(saliency=False),
        reconstructions.graph(channels=3, layout="nchw"),
        reconstructions.graph(size=(20, 24)),
    ):
        with pytest.raises(FlawlineError, match=r"expected|takes|gives"):
            ReconstructionScorer(wrong, opened.manifest, backend=engine)
