"""Bundles of classifiers: what their manifest and tensors must be, and what is refused, one by one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from flawline.runtime import InputError, bundle
from flawline.runtime.bundle import manifest as manifests
from flawline.runtime.errors import BundleError
from tests.runtime import classifiers
from tests.runtime.classifiers import THRESHOLDS, classifier_bundle
from tests.runtime.manifests import changed

WEB = {"halo": 1, "ring": 0}
FROM_A_FILE = {f"classifier__{name}": None for name in ("loss", "center_weight", "epochs", "best_epoch")}


def refuse(message: str, /, *, head: bool = True, **fields: Any) -> None:
    with pytest.raises(BundleError, match=message) as info:
        manifests.decode(changed(classifiers.manifest(head=head), **fields))
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("precision", ["fp32", "int8", "int8-openvino"])
@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize(("channels", "layout"), [(1, "nhwc"), (3, "nchw"), (3, "nhwc")])
def test_a_manifest_is_read_as_it_was_written(channels: int, layout: str, head: bool, precision: str) -> None:
    manifest = classifiers.manifest(channels=channels, layout=layout, head=head, precision=precision)
    read = manifests.decode(manifests.encode(manifest))
    assert read == manifest
    assert (read.detector, read.has_head, read.format.minor) == ("classifier", head, 5)
    assert list(read.output_channels) == [4, 3, 1][: 2 + head]


def test_a_network_from_a_file_has_no_training() -> None:
    fields = FROM_A_FILE | {"classifier__head_images": None}
    read = manifests.decode(changed(classifiers.manifest(), **fields))
    assert (read.classifier.loss, read.classifier.epochs, read.has_head) == (None, None, True)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("detector", "classifiers", r"Invalid value 'classifiers' - at `\$.detector`"),
        ("classifier", ..., "missing required field `classifier`"),
        ("gaussian", ..., "missing required field `gaussian`"),
        ("projection", None, "Expected `object`, got `null`"),
        ("classifier__classes", [], r"length >= 2 - at `\$.classifier.classes`"),
        ("classifier__classes", ["bolt"], r"length >= 2 - at `\$.classifier.classes`"),
        ("classifier__classes", ["x"] * 65537, r"length <= 65536 - at `\$.classifier.classes`"),
        ("classifier__classes__1", "", r"length >= 1 - at `\$.classifier.classes\[1\]`"),
        ("classifier__classes__1", 7, "Expected `str`, got `int`"),
        ("classifier__percentile", 100, r"< 100.0 - at `\$.classifier.percentile`"),
        ("classifier__percentile", 0, r"> 0.0 - at `\$.classifier.percentile`"),
        ("classifier__scores__error", {"score": 1.0}, "Invalid enum value 'error'"),
        ("classifier__scores__head__score", -0.5, r">= 0.0.*scores"),
        ("classifier__scores__head", 0.5, "Expected `object`, got `float`"),
        ("classifier__score", "error", r"Invalid enum value 'error' - at `\$.classifier.score`"),
        ("classifier__center_weight", -0.1, r">= 0.0 - at `\$.classifier.center_weight`"),
        ("classifier__epochs", 0, r">= 1 - at `\$.classifier.epochs`"),
        ("classifier__head_images", 0, r">= 1 - at `\$.classifier.head_images`"),
        ("gaussian__tie", "classes", "Invalid enum value 'classes'"),
    ],
)
def test_a_field_of_wrong_type_or_range_is_refused(path: str, value: object, message: str) -> None:
    refuse(message, **{path: value})


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("web", WEB, "web is there; expected null for a classifier"),
        ("network__precision", "fp16", "network.precision is 'fp16'; expected 'fp32' or one of 8 bits"),
        ("network__layers", ["fc1", "fc2"], "network.layers are 2; expected one, that of the deep features"),
        ("network__outputs__0__name", "feature", r"\['feature', 'logits', 'head'\]; expected \['features', 'logits'"),
        ("network__outputs__1__name", "features", "name a tensor twice"),
        ("network__outputs__1__height", 2, "output 'logits' of 2 x 1 is finer than the map"),
        ("network__outputs__0__width", 2, "network.outputs.0. is 1 x 2; expected the map's 1 x 1"),
        ("map__height", 2, "map of 2 x 1, sigma 0, nearest; expected 1 x 1, sigma 0, nearest for a classifier"),
        ("map__sigma", 1.5, "map of 1 x 1, sigma 1.5, nearest; expected"),
        ("map__upsampling", "bilinear", "map of 1 x 1, sigma 0, bilinear; expected"),
        ("projection__dimension", 3, "projection none from 4 to 3 channels; expected equal numbers"),
        ("gaussian__tie", "position", "gaussian.tie is position; expected class for a classifier"),
        ("gaussian__tie", "global", "gaussian.tie is global; expected class for a classifier"),
        ("gaussian__lane_px", 4, "gaussian.tie is class with lanes of 4 px; expected class for a classifier"),
        ("gaussian__count", 2, "2 Gaussians of 1 components; expected 3 of 1, one per class"),
        ("gaussian__components", 2, "3 Gaussians of 2 components; expected 3 of 1, one per class"),
        ("gaussian__form", "woodbury", "gaussian.rank is None for factors in the form woodbury"),
        ("classifier__classes", ["bolt", "nut"], "3 Gaussians of 1 components; expected 2 of 1, one per class"),
        ("classifier__classes__2", "bolt", "classifier.classes names 'bolt' twice; expected every class once"),
        ("classifier__scores__mahalanobis", ..., "classifier.scores lacks 'mahalanobis'"),
        (
            "classifier__scores__head__score",
            1.5,
            r"classifier.scores.head.score is 1.5; expected a probability, 0 to 1",
        ),
        ("classifier__scores", {}, "classifier.scores lacks 'mahalanobis'"),
        ("classifier__scores__head", ..., "classifier.head_images is 30; expected null without a second head"),
        ("classifier__loss", None, "classifier.center_weight is 0.1, classifier.loss is null; expected all of"),
        ("classifier__center_weight", None, "classifier.center_weight is null, classifier.loss is 'cross-entropy and"),
        ("classifier__epochs", None, "classifier.epochs is null, classifier.loss is"),
        ("classifier__best_epoch", None, "classifier.best_epoch is null, classifier.loss is"),
        ("classifier__best_epoch", 13, "best_epoch is 13; expected at most the 12 epochs"),
        (
            "threshold__score",
            1.0,
            "threshold.score is 1.0, classifier.scores.mahalanobis.score is 1.25; expected equal",
        ),
        ("fit__calibration_images", 5, "threshold.calibration_images is 4, fit.calibration_images is 5"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(path: str, value: object, message: str) -> None:
    refuse(message, **{path: value})


def test_a_head_is_there_for_its_score_and_for_nothing_else() -> None:
    outputs = [{"name": name, "height": 1, "width": 1} for name in ("features", "logits", "head")]
    refuse(r"\['features', 'logits', 'head'\]; expected \['features', 'logits'\]", head=False, network__outputs=outputs)
    refuse(r"\['features', 'logits'\]; expected \['features', 'logits', 'head'\]", network__outputs=outputs[:2])
    refuse(
        "classifier.score is 'head'; expected one of classifier.scores, mahalanobis",
        head=False,
        classifier__score="head",
    )


def test_a_name_of_a_class_reaches_no_terminal_unescaped() -> None:
    refuse(r"names '\\x1b\[31m' twice", classifier__classes=["\x1b[31m", "\x1b[31m", "nut"])


def test_gaussians_of_classes_are_no_model_of_padim(parts: Callable[..., Any]) -> None:
    with pytest.raises(BundleError, match=r"gaussian\.tie is class; expected position, column or global for a padim"):
        manifests.decode(changed(parts().manifest, gaussian__tie="class"))


def variant(**fields: Any) -> dict[str, Any]:
    """The plain form of a precision of 8 bits."""
    plain = json.loads(manifests.encode(classifiers.manifest(precision="int8")))
    made = {name: plain[name] for name in ("threshold", "parity", "golden", "network", "gaussian")}
    return made | {"features": "features.int8.onnx", "fidelity": None, "scores": plain["classifier"]["scores"]} | fields


def test_a_precision_of_8_bits_may_be_beside() -> None:
    whole = manifests.decode(changed(classifiers.manifest(), variants={"int8": variant()}))
    assert whole.precisions == ("fp32", "int8")
    selected = whole.select("int8")
    assert (selected.network.precision, selected.precisions) == ("int8", ("int8",))
    assert manifests.decode(manifests.encode(whole)) == whole


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scores": {"mahalanobis": {"score": 1.25}}}, "variants.int8.scores are mahalanobis; expected those of the"),
        ({"scores": {}}, "variants.int8.scores are none; expected those of the bundle, head, mahalanobis"),
        (
            {"scores": {"mahalanobis": {"score": 2.0}, "head": {"score": 0.5}}},
            "variants.int8: threshold.score is 1.25, classifier.scores.mahalanobis.score is 2.0",
        ),
        ({"scores": ...}, "missing required field `scores`"),
        ({"gaussian": ...}, "missing required field `gaussian`"),
    ],
)
def test_a_precision_of_8_bits_that_is_another_detector_is_refused(fields: dict[str, Any], message: str) -> None:
    plain = {name: value for name, value in variant(**fields).items() if value is not ...}
    refuse(message, variants={"int8": plain})


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"class_thresholds": None}, "lacks the tensor class_thresholds"),
        ({"means": None}, "lacks the tensor means"),
        ({"calibration_scores.head": None}, "lacks the tensor calibration_scores.head"),
        ({"calibration_scores": np.ones(4, np.float32)}, "holds the tensor calibration_scores; the manifest promises"),
        ({"class_thresholds": np.ones(2, np.float32)}, r"class_thresholds is float32 \(2,\); .* float32 \(3,\)"),
        ({"class_thresholds": np.ones((3, 1), np.float32)}, r"class_thresholds is float32 \(3, 1\)"),
        ({"class_thresholds": np.ones(3)}, "class_thresholds is float64"),
        ({"class_thresholds": np.array([1, 0, 1], np.float32)}, "class_thresholds holds 0.0; expected numbers above 0"),
        ({"class_thresholds": np.array([1, -1, 1], np.float32)}, "class_thresholds holds -1.0; expected numbers above"),
        ({"class_thresholds": np.array([1, np.nan, 1], np.float32)}, "class_thresholds holds NaN or infinity"),
        ({"class_thresholds": np.array([1, np.inf, 1], np.float32)}, "class_thresholds holds NaN or infinity"),
        ({"means": np.ones((3, 1, 5), np.float32)}, r"means is float32 \(3, 1, 5\)"),
        ({"means": np.ones((1, 1, 4), np.float32)}, r"means is float32 \(1, 1, 4\)"),
        ({"assignment": np.zeros(1, np.int32)}, r"assignment is int32 \(1,\); the manifest promises int32 \(3,\)"),
        ({"assignment": np.array([0, 2, 1], np.int32)}, "assignment does not name the Gaussians in the order of their"),
        ({"assignment": np.array([0, 1, 3], np.int32)}, "assignment names Gaussian 3; expected 0 to 2"),
        ({"scales": np.zeros((3, 1), np.float32)}, "scales holds 0.0; expected numbers above 0"),
        ({"projection": np.ones((4, 4), np.float32)}, "holds the tensor projection"),
        ({"calibration_scores.head": np.linspace(0, 1.5, 4, dtype=np.float32)}, "head is not of probabilities"),
        ({"calibration_scores.mahalanobis": np.array([1, 3, 2, 4], np.float32)}, "mahalanobis is not in ascending"),
    ],
)
def test_statistics_that_are_not_what_the_manifest_promises_are_refused(
    tensors: dict[str, np.ndarray | None], message: str, tmp_path: Path
) -> None:
    opened = classifier_bundle(tmp_path / "bundle")
    merged = {name: array for name, array in {**classifiers.statistics(), **tensors}.items() if array is not None}
    with pytest.raises(BundleError, match=message) as info:
        bundle.write(tmp_path / "other", opened.manifest, opened.features, merged, opened.golden)
    assert "\n" not in str(info.value)
    assert not (tmp_path / "other").exists()


def test_a_golden_map_of_another_size_is_refused(tmp_path: Path) -> None:
    opened = classifier_bundle(tmp_path / "bundle")
    golden = [bundle.Golden(opened.golden[0].frame, 1.0, np.ones((2, 1), np.float32))]
    with pytest.raises(BundleError, match=r"tensor map.0 is float32 \(2, 1\); the manifest promises float32 \(1, 1\)"):
        bundle.write(tmp_path / "other", opened.manifest, opened.features, classifiers.statistics(), golden)


def test_with_map_takes_threshold_and_p_values_of_that_score(tmp_path: Path) -> None:
    opened = classifier_bundle(tmp_path / "bundle")
    for kind, threshold in THRESHOLDS.items():
        other = opened.with_map(kind)
        assert (other.manifest.classifier.score, other.manifest.threshold.score) == (kind, threshold)
        np.testing.assert_array_equal(other.calibration_scores, classifiers.statistics()[bundle.score_tensor(kind)])
        assert other.p_value(0.6 * threshold) == 3 / 5
        assert other.select(None).manifest == other.manifest
        assert other.with_map(None).manifest == opened.manifest


def test_what_padim_has_is_refused_in_one_line(tmp_path: Path) -> None:
    opened = classifier_bundle(tmp_path / "bundle")
    with pytest.raises(InputError, match="is a bundle of a classifier detector; this needs one of PaDiM"):
        opened.padim  # noqa: B018 -- a property that refuses
    with pytest.raises(InputError, match=r"the bundle holds no network in int8; expected fp32$"):
        opened.select("int8")


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    one, other = (classifier_bundle(tmp_path / name) for name in ("one", "other"))
    assert one.hash == other.hash
    assert msgspec.structs.replace(one.manifest, files={}) == classifiers.manifest()
