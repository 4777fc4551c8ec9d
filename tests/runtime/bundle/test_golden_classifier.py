"""A bundle of a classifier that was committed once, and must be readable and give its scores for ever."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from flawline.runtime import Detector, bundle, kernels
from flawline.runtime.engines import open_scorer
from flawline.runtime.verification import verify
from tests.runtime import classifiers

FOLDER_1_5 = Path(__file__).parents[2] / "golden" / "bundle_1_5"
HASH_1_5 = "5316efc4c9d5d118c9a0fcf4563cb095e8f452e867ea303aa7beee93c1f31517"
DISTANCES = (3.0, np.sqrt(20.0), 2.5)
"""Of the frame, whose features are 2, 3, 4 and 5."""
CLASS_THRESHOLDS = {"fp32": (1.5, 4.0, 2.0), "int8": (2.0, 5.0, 2.0)}
SCORES = {"fp32": np.sqrt(20.0) / 4, "int8": np.sqrt(20.0) / 5}
P_VALUES = {
    ("fp32", "mahalanobis"): 1 / 5,
    ("int8", "mahalanobis"): 2 / 5,
    ("fp32", "head"): 3 / 5,
    ("int8", "head"): 3 / 5,
}
PROBABILITY = 0.804785
"""Of the washer, by the softmax of the logits that were committed."""
NORMAL = 1 / (1 + np.exp(-1))
"""By the second head: odds of e to 1, for a bias of 6 less half the sum of the features."""


def frame() -> np.ndarray:
    """Four bands of one brightness each."""
    return np.repeat(np.array([64, 96, 128, 160], np.uint8), 4)[:, None].repeat(20, axis=1)


def statistics(precision: str) -> dict[str, np.ndarray]:
    """Gaussians that are round, so that distances can be told by hand."""
    scales = np.array([1, 2, 0.5], np.float32)
    whitening = scales[:, None, None, None] * np.eye(4, dtype=np.float32)
    means = np.array([[2, 3, 4, 2], [1, 1, 4, 5], [2, 0, 0, 5]], np.float32)
    return {
        "means": means[:, None],
        "factors": kernels.pack(np.ascontiguousarray(whitening), {"fp32": np.float32, "int8": np.float16}[precision]),
        "scales": np.ones((3, 1), np.float32),
        "assignment": np.arange(3, dtype=np.int32),
        "class_thresholds": np.array(CLASS_THRESHOLDS[precision], np.float32),
        "calibration_scores.mahalanobis": np.array([0.25, 0.5, 0.75, 1], np.float32),
        "calibration_scores.head": np.array([0.125, 0.25, 0.375, 0.5], np.float32),
    }


def network(precision: str) -> bundle.Network:
    return bundle.Network(
        name="lenet",
        layers=["fc2"],
        weights=bundle.Weights(origin="trained on the images", sha256="0" * 64, random=False),
        precision=precision,
        quantisation=bundle.Quantisation(calibration_images=8, sensitivity=[]) if precision == "int8" else None,
        input="frame",
        outputs=[bundle.Output(name=name, height=1, width=1) for name in ("features", "logits", "head")],
        total_stride=1,
    )


def gaussian(factors: str) -> bundle.Gaussian:
    return bundle.Gaussian(
        tie="class",
        lane_px=None,
        count=3,
        components=1,
        epsilon=0.01,
        epsilon_relative=True,
        shrinkage="ledoit-wolf",
        factors=factors,
        form="triangle",
        rank=None,
        block_rows=8,
    )


def scores(mahalanobis: float) -> dict[str, bundle.MapThreshold]:
    return {"mahalanobis": bundle.MapThreshold(score=mahalanobis), "head": bundle.MapThreshold(score=0.5)}


def threshold(score: float) -> bundle.Threshold:
    return bundle.Threshold(false_reject_rate=0.25, score=score, calibration_images=4)


def manifest() -> bundle.ClassifierManifest:
    """Every field spelt out, so that a change of defaults cannot pass unseen."""
    return bundle.ClassifierManifest(
        format=bundle.Format(major=1, minor=5),
        flawline="0.1.0",
        input=bundle.Input(
            height=16,
            width=20,
            channels=1,
            layout="nhwc",
            interpolation="area",
            source_height=None,
            source_width=None,
        ),
        network=network("fp32"),
        projection=bundle.Projection(kind="none", seed=0, input_dimension=4, dimension=4, generator="philox4x64"),
        map=bundle.Map(height=1, width=1, upsampling="nearest", sigma=0.0),
        gaussian=gaussian("fp32"),
        classifier=bundle.Classifier(
            classes=["bolt", "nut", "washer"],
            percentile=97.5,
            scores=scores(1.0),
            score="mahalanobis",
            loss="cross-entropy and center loss",
            center_weight=0.1,
            epochs=12,
            best_epoch=9,
            head_images=30,
        ),
        threshold=threshold(1.0),
        fit=bundle.Fit(images=60, calibration_images=4, group_by=None, seed=2, sources_sha256="f" * 64),
        web=None,
        parity={"reference": "none", "relative_error_max": 0.5},
        fidelity=None,
        variants={
            "int8": bundle.ClassifierVariant(
                features="features.onnx",
                network=network("int8"),
                threshold=threshold(0.875),
                parity=None,
                fidelity={"reference": "none", "feature_error": 0.125},
                golden=bundle.GoldenFacts(relative_tolerance=0.01),
                gaussian=gaussian("fp16"),
                scores=scores(0.875),
            )
        },
        golden=bundle.GoldenFacts(relative_tolerance=0.001),
    )


def golden(precision: str) -> list[bundle.Golden]:
    score = np.float32(SCORES[precision])
    return [bundle.Golden(frame=frame(), score=float(score), map=np.full((1, 1), score, np.float32))]


def write(path: Path, features: bytes | None = None) -> bundle.Bundle:
    """Writes the bundle, with a graph made anew unless there is one: its bytes depend on the version of onnx."""
    graph = features or classifiers.graph()
    variants = {"int8": bundle.Payload(graph, statistics("int8"), golden("int8"))}
    return bundle.write(path, manifest(), graph, statistics("fp32"), golden("fp32"), variants)


def test_the_bundle_of_format_1_5_is_read_bit_for_bit() -> None:
    opened = bundle.read(FOLDER_1_5)
    assert (opened.hash, opened.precisions, opened.manifest.detector) == (HASH_1_5, ("fp32", "int8"), "classifier")
    assert msgspec.structs.replace(opened.manifest, files={}) == manifest()
    for precision in opened.precisions:
        selected = opened.select(precision)
        assert selected.statistics.keys() == statistics(precision).keys()
        for name, array in statistics(precision).items():
            np.testing.assert_array_equal(selected.statistics[name], array, strict=True)
        (one,) = selected.golden
        np.testing.assert_array_equal(one.frame, frame(), strict=True)
        assert one.score == one.map[0, 0] == np.float32(SCORES[precision])


def test_the_writer_still_makes_the_committed_bytes(tmp_path: Path) -> None:
    written = write(tmp_path / "bundle", bundle.read(FOLDER_1_5).features)
    assert {path.name: path.read_bytes() for path in written.path.iterdir()} == {
        path.name: path.read_bytes() for path in FOLDER_1_5.iterdir()
    }


@pytest.mark.parametrize("kind", ["mahalanobis", "head"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_every_engine_gives_the_committed_scores(precision: str, kind: str, engine: str) -> None:
    if precision == "int8" and engine != "onnxruntime":
        pytest.skip(f"{engine} does not compute in int8")
    with Detector.open(FOLDER_1_5, backend=engine, precision=precision, map=kind) as detector:
        result = detector(frame())
    found = result.classification
    assert found is not None
    np.testing.assert_allclose(found.distances, DISTANCES, rtol=1e-5)
    assert (found.label, found.nearest) == ("washer", "nut")
    assert found.probability == pytest.approx(PROBABILITY, rel=1e-4)
    assert found.head == pytest.approx(NORMAL, rel=1e-4)
    assert result.score == pytest.approx(SCORES[precision] if kind == "mahalanobis" else 1 - NORMAL, rel=1e-4)
    assert result.verdict == ("reject" if kind == "mahalanobis" else "good")
    assert result.p_value == P_VALUES[precision, kind]


def test_golden_frames_verify(engine: str) -> None:
    opened = bundle.read(FOLDER_1_5)
    with open_scorer(opened, engine, threads=1) as scorer:
        assert all(check.passed for check in verify(opened, scorer))
