"""Classes, distances and scores of a classifier are those of the definition, in every engine, layout and batch."""

import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest

from flawline.runtime import Detector, FlawlineError, InputError, ResourceError, bundle, memory
from flawline.runtime.bundle import contents
from flawline.runtime.classifier_scorer import ClassifierScorer
from flawline.runtime.engines import open_scorer
from flawline.runtime.verification import verify
from tests.runtime import classifiers
from tests.runtime.classifiers import CLASS_THRESHOLDS, CLASSES, classifier_bundle, expected_score, random_frames

FORMS = [(1, "nhwc"), (1, "nchw"), (3, "nhwc"), (3, "nchw")]


def with_constant(features: bytes, name: str, value: np.ndarray) -> bytes:
    """An ONNX file with another constant of that name."""
    model = onnx.load_model_from_string(features)
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(onnx.numpy_helper.from_array(value, name))
    return model.SerializeToString()


@pytest.mark.parametrize("factors", ["fp16", "fp32"])
@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize(("channels", "layout"), FORMS)
def test_classes_and_distances_are_those_of_the_definition(
    channels: int, layout: str, head: bool, factors: str, engine: str, tmp_path: Path
) -> None:
    path = classifier_bundle(tmp_path / "bundle", channels=channels, layout=layout, head=head, factors=factors).path
    frames = random_frames(5, channels=channels, seed=8)
    tolerance = 1e-5 if factors == "fp32" else 2e-3
    labels, nearest = set(), set()
    for threads, batch in ((1, 1), (2, 3)):
        with Detector.open(path, backend=engine, threads=threads, batch=batch) as detector:
            results = [one for start in range(0, 5, batch) for one in detector.batch(frames[start : start + batch])]
        for result, frame in zip(results, frames, strict=True):
            found = result.classification
            assert found is not None
            assert found.label == CLASSES[classifiers.probabilities(frame).argmax()]
            assert found.probability == pytest.approx(classifiers.probabilities(frame).max(), rel=1e-4)
            assert found.distances.dtype == np.float32
            np.testing.assert_allclose(found.distances, classifiers.distances(frame), rtol=tolerance)
            assert found.nearest == CLASSES[(classifiers.distances(frame) / CLASS_THRESHOLDS).argmin()]
            assert found.head == (pytest.approx(classifiers.normal(frame), abs=1e-5) if head else None)
            assert result.score == pytest.approx(expected_score(frame), rel=tolerance)
            assert result.map.tolist() == [[result.score]]
            labels.add(found.label)
            nearest.add(found.nearest)
    assert len(labels) > 1
    assert len(nearest) > 1


def test_a_score_above_1_is_beyond_the_threshold_of_every_class(tmp_path: Path) -> None:
    path = classifier_bundle(tmp_path / "bundle").path
    frames = random_frames(40, seed=9)
    with Detector.open(path, backend="onnxruntime") as detector:
        results = [detector(frame) for frame in frames]
    beyond = [bool((result.classification.distances > CLASS_THRESHOLDS).all()) for result in results]
    assert [result.score > 1 for result in results] == beyond
    assert 5 < sum(beyond) < 35


def test_the_second_head_scores_where_it_is_asked_for(engine: str, tmp_path: Path) -> None:
    path = classifier_bundle(tmp_path / "bundle").path
    with Detector.open(path, backend=engine, map="head") as detector:
        for frame in random_frames(4, seed=11):
            result = detector(frame)
            assert result.score == pytest.approx(expected_score(frame, "head"), abs=1e-5)
            assert result.score == pytest.approx(1 - result.classification.head)
            assert result.threshold == classifiers.THRESHOLDS["head"]
            np.testing.assert_allclose(result.classification.distances, classifiers.distances(frame), rtol=1e-5)


@pytest.mark.parametrize("kind", ["mahalanobis", "head"])
def test_a_p_value_is_of_that_score(kind: str, tmp_path: Path) -> None:
    path = classifier_bundle(tmp_path / "bundle").path
    with Detector.open(path, backend="onnxruntime", map=kind) as detector:
        threshold = classifiers.THRESHOLDS[kind]
        assert [detector.p_value(share * threshold) for share in (0.2, 0.6, 1.1)] == [1, 3 / 5, 1 / 5]


def test_the_region_of_a_rejected_frame_is_the_frame(tmp_path: Path) -> None:
    path = classifier_bundle(tmp_path / "bundle").path
    frame = np.repeat(np.repeat(random_frames(1)[0], 2, 0), 3, 1)
    with Detector.open(path, backend="onnxruntime") as detector:
        detector.threshold = 0
        (region,) = detector(frame).regions
        assert (region.x, region.y, region.width, region.height, region.area_px) == (0, 0, 60, 32, 60 * 32)
        assert region.peak == region.mean == detector(frame).score
        detector.threshold = 1e6
        assert detector(frame).regions == []


def test_a_frame_is_scored_the_same_alone_and_in_a_batch_bit_for_bit(engine: str, tmp_path: Path) -> None:
    path = classifier_bundle(tmp_path / "bundle").path
    frames = random_frames(4)
    with Detector.open(path, backend=engine) as alone, Detector.open(path, backend=engine, batch=4) as many:
        for one, other in zip([alone(frame) for frame in frames], many.batch(frames), strict=True):
            np.testing.assert_array_equal(one.classification.distances, other.classification.distances)
            assert (one.score, one.classification.label) == (other.score, other.classification.label)


def test_what_was_said_of_a_frame_stays_when_the_next_is_scored(tmp_path: Path) -> None:
    path = classifier_bundle(tmp_path / "bundle").path
    first, second = random_frames(2)
    with Detector.open(path, backend="onnxruntime") as detector:
        result = detector(first)
        kept = result.classification.distances.copy()
        assert not np.array_equal(detector(second).classification.distances, kept)
    np.testing.assert_array_equal(result.classification.distances, kept)


def test_golden_frames_score_as_they_should(engine: str, tmp_path: Path) -> None:
    opened = classifier_bundle(tmp_path / "bundle")
    with open_scorer(opened, engine, threads=1) as scorer:
        assert all(check.passed for check in verify(opened, scorer))


def test_auto_takes_an_engine_that_gives_the_golden_scores(tmp_path: Path) -> None:
    path = classifier_bundle(tmp_path / "bundle").path
    with Detector.open(path, map="head") as detector:
        assert detector.backend in ("onnxruntime", "openvino")


def test_a_score_that_is_not_offered_is_refused(tmp_path: Path) -> None:
    path = classifier_bundle(tmp_path / "bundle", head=False).path
    with pytest.raises(InputError, match="the bundle offers no map 'head'; expected mahalanobis"):
        Detector.open(path, map="head")
    with pytest.raises(InputError, match="the bundle offers no map 'pse'; expected mahalanobis"):
        Detector.open(path, map="pse")


def test_a_gpu_is_refused_in_one_line(tmp_path: Path) -> None:
    path = classifier_bundle(tmp_path / "bundle").path
    with pytest.raises(InputError, match="is of a classifier, which runs on a CPU; take --backend onnxruntime") as info:
        Detector.open(path, backend="tensorrt")
    assert "\n" not in str(info.value)
    with Detector.open(path, backend="tensorrt", fallback=True) as detector:
        assert "is of a classifier" in detector.fallback_reason
        assert detector(random_frames(1)[0]).classification is not None


@pytest.mark.parametrize(
    ("constant", "value", "message"),
    [
        ("scale", np.float32(np.nan), "the network gave NaN or infinite features"),
        ("to_logits", np.full((3, 4, 1, 1), np.inf, np.float32), "the network gave NaN or infinite logits"),
        ("to_head", np.full((1, 4, 1, 1), np.nan, np.float32), "the second head gave NaN or infinity"),
    ],
)
def test_numbers_that_are_none_are_refused(constant: str, value: np.ndarray, message: str, tmp_path: Path) -> None:
    features = with_constant(classifiers.graph(), constant, value)
    path = classifier_bundle(tmp_path / "bundle", features=features).path
    with (
        Detector.open(path, backend="onnxruntime") as detector,
        pytest.raises(FlawlineError, match=message),
    ):
        detector(random_frames(1)[0])


@pytest.mark.filterwarnings("ignore:overflow|invalid value")
@pytest.mark.parametrize("kind", ["mahalanobis", "head"])
@pytest.mark.parametrize(("name", "value"), [("scales", 3e38), ("means", 3e38)])
def test_distances_that_are_no_numbers_are_refused_whatever_the_score(
    name: str, value: float, kind: str, tmp_path: Path
) -> None:
    changed = {name: classifiers.statistics()[name].copy()}
    changed[name][1] = value
    path = classifier_bundle(tmp_path / "bundle", tensors=changed).path
    with (
        Detector.open(path, backend="onnxruntime", map=kind) as detector,
        pytest.raises(FlawlineError, match="the features gave NaN or infinite distances to classes"),
    ):
        detector(random_frames(1)[0])


def test_a_head_may_be_as_sure_as_it_likes(tmp_path: Path) -> None:
    features = with_constant(classifiers.graph(), "to_head", np.full((1, 4, 1, 1), -100, np.float32))
    path = classifier_bundle(tmp_path / "bundle", features=features).path
    with Detector.open(path, backend="onnxruntime", map="head") as detector:
        result = detector(np.full(classifiers.SIZE, 250, np.uint8))
    assert 0 < result.score < 1e-30
    assert result.classification is not None
    assert result.classification.head == 1


@pytest.mark.parametrize("head", [True, False])
def test_a_graph_without_what_the_manifest_promises_is_refused(head: bool, engine: str, tmp_path: Path) -> None:
    path = classifier_bundle(tmp_path / "bundle", head=head, features=classifiers.graph(head=not head)).path
    found, expected = (2, 3) if head else (3, 2)
    with pytest.raises(FlawlineError, match="the feature graph takes and gives") as info:
        Detector.open(path, backend=engine)
    gives, says = str(info.value).split("; the manifest says ")
    assert (gives.count("float32"), says.count("float32"), str(info.value).count("\n")) == (found, expected, 0)


@pytest.mark.parametrize("batch", [0, -1])
def test_no_frames_at_once_are_refused(batch: int, tmp_path: Path) -> None:
    path = classifier_bundle(tmp_path / "bundle").path
    with pytest.raises(InputError, match=f"batch: received {batch}"):
        Detector.open(path, backend="onnxruntime", batch=batch)


def test_a_batch_that_there_is_no_memory_for_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = classifier_bundle(tmp_path / "bundle").path
    monkeypatch.setattr(memory, "available_bytes", lambda: 1000)
    with pytest.raises(ResourceError, match=r"3 classes of 100 frames at once needs about .* use a smaller batch"):
        Detector.open(path, backend="onnxruntime", batch=100)


def test_frames_take_no_memory_but_what_is_handed_out(tmp_path: Path) -> None:
    opened = classifier_bundle(tmp_path / "bundle")
    model = contents.gaussians(opened.manifest, opened.statistics)
    thresholds = opened.statistics["class_thresholds"]
    frames = random_frames(2)
    with ClassifierScorer(
        opened.features, opened.manifest, model, thresholds, backend="onnxruntime", batch=2
    ) as scorer:
        for _ in range(3):
            scorer.batch(frames)
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(50):
                scorer.batch(frames)
            after = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
    assert after - before < 8192
    assert len(scorer.classifications) == 2


def test_a_precision_of_8_bits_has_scores_of_its_own(tmp_path: Path) -> None:
    import msgspec

    whole = classifiers.manifest()
    scores = {"mahalanobis": bundle.MapThreshold(score=2.0), "head": bundle.MapThreshold(score=0.75)}
    of_8_bits = classifiers.manifest(precision="int8")
    variant = bundle.ClassifierVariant(
        features="features.onnx",
        network=of_8_bits.network,
        threshold=msgspec.structs.replace(whole.threshold, score=2.0),
        parity=None,
        fidelity=None,
        golden=whole.golden,
        gaussian=whole.gaussian,
        scores=scores,
    )
    features, statistics, golden = classifiers.graph(), classifiers.statistics(), classifiers.golden()
    path = tmp_path / "bundle"
    payload = bundle.Payload(features, statistics | {"class_thresholds": 2 * CLASS_THRESHOLDS}, golden)
    written = bundle.write(
        path,
        msgspec.structs.replace(whole, variants={"int8": variant}),
        features,
        statistics,
        golden,
        {"int8": payload},
    )
    assert written.select("int8").with_map("head").manifest.threshold.score == 0.75
    assert written.with_map("head").select("int8").manifest.threshold.score == 0.75
    assert written.with_map("head").manifest.threshold.score == 0.5
    assert written.select("int8").manifest.classifier.scores == scores
    frame = random_frames(1, seed=8)[0]
    with Detector.open(path, backend="onnxruntime", precision="int8") as detector:
        result = detector(frame)
    assert result.threshold == 2
    assert result.score == pytest.approx(expected_score(frame) / 2, rel=1e-5)
