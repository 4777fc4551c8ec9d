"""Bundles of reconstruction detectors: what their manifest and tensors must be, and what is refused, one by one."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from flawline.runtime import InputError, bundle
from flawline.runtime.bundle import manifest as manifests
from flawline.runtime.errors import BundleError
from tests.runtime import reconstructions
from tests.runtime.manifests import changed
from tests.runtime.reconstructions import KINDS, THRESHOLDS, reconstruction_bundle, statistics


def refuse(message: str, /, *, kinds: tuple[str, ...] = KINDS, **fields: Any) -> None:
    with pytest.raises(BundleError, match=message):
        manifests.decode(changed(reconstructions.manifest(kinds=kinds), **fields))


@pytest.mark.parametrize("kinds", [("error",), ("pse", "error"), ("saliency",), KINDS])
@pytest.mark.parametrize(("channels", "layout"), [(1, "nhwc"), (1, "nchw"), (3, "nchw")])
def test_a_manifest_is_read_as_it_was_written(channels: int, layout: str, kinds: tuple[str, ...]) -> None:
    manifest = reconstructions.manifest(channels=channels, layout=layout, kinds=kinds)
    read = manifests.decode(manifests.encode(manifest))
    assert read == manifest
    assert read.detector == "reconstruction"
    assert list(read.output_channels) == [channels, 1][: len(read.network.outputs)]


def test_the_manifest_of_principal_components_has_no_training() -> None:
    fields = {"kind": "pca", "architecture": "pca", "loss": None, "epochs": None, "best_epoch": None}
    data = changed(
        reconstructions.manifest(kinds=("pse",)),
        network__name="pca",
        **{f"reconstruction__{name}": value for name, value in fields.items()},
    )
    assert manifests.decode(data).reconstruction.kind == "pca"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("detector", "padim", "missing required field `projection`"),
        ("detector", "autoencoder", r"Invalid value 'autoencoder' - at `\$.detector`"),
        ("detector", ..., "missing required field `detector`"),
        ("detector", None, r"Expected `str`, got `NoneType` - at `\$.detector`"),
        ("reconstruction", ..., "missing required field `reconstruction`"),
        ("reconstruction", None, "Expected `object`, got `null`"),
        ("reconstruction__kind", "vae", "Invalid enum value 'vae'"),
        ("reconstruction__architecture", "", r"length >= 1 - at `\$.reconstruction.architecture`"),
        ("reconstruction__components", 0, r">= 1 - at `\$.reconstruction.components`"),
        ("reconstruction__components", 1.5, "Expected `int`, got `float`"),
        ("reconstruction__maps", {}, r"length >= 1 - at `\$.reconstruction.maps`"),
        ("reconstruction__maps", ["error"], "Expected `object`, got `array`"),
        ("reconstruction__maps__ssim", {"score": 1.0}, "Invalid enum value 'ssim'"),
        ("reconstruction__maps__error", 90.0, "Expected `object`, got `float`"),
        ("reconstruction__maps__error__score", -1.0, r">= 0.*maps"),
        ("reconstruction__maps__error__score", None, "Expected `float`, got `null`"),
        ("reconstruction__maps__error__score", ..., "missing required field `score`"),
        ("reconstruction__map", "ssim", "Invalid enum value 'ssim'"),
        ("reconstruction__normalised", 1, "Expected `bool`, got `int`"),
        ("reconstruction__loss", 3, r"Expected `str \| null`, got `int`"),
        ("reconstruction__epochs", 0, r">= 1 - at `\$.reconstruction.epochs`"),
        ("reconstruction__chosen", "x" * 1025, r"length <= 1024 - at `\$.reconstruction.chosen`"),
    ],
)
def test_a_field_of_wrong_type_or_range_is_refused(path: str, value: object, message: str) -> None:
    refuse(message, **{path: value})


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("web", {"halo": 1, "ring": 0}, "web is there; expected null for a reconstruction detector"),
        ("network__precision", "fp16", "network.precision is 'fp16'; expected 'fp32'"),
        ("input__channels", 3, "input.layout is 'nhwc' for a reconstruction in colour; expected 'nchw'"),
        ("network__name", "other", "network.name is 'other'; expected that of the architecture, 'convolutional'"),
        ("network__layers", ["layer1"], r"network.layers \['layer1'\] of total stride 1; expected"),
        ("network__total_stride", 2, r"of total stride 2; expected \['reconstruction'\] and 1"),
        ("network__outputs__0__name", "image", r"network.outputs \['image', 'saliency'\]; expected \['reconstruction'"),
        ("network__outputs__1__name", "reconstruction", r"outputs \['reconstruction', 'reconstruction'\]; expected"),
        ("network__outputs__1__width", 10, "output saliency of 24 x 10; expected the input's 24 x 20"),
        ("network__outputs__0__height", 25, "output reconstruction of 25 x 20; expected the input's 24 x 20"),
        ("map__height", 12, "map of 12 x 20; expected the input's 24 x 20"),
        ("map__upsampling", "bilinear", "map.upsampling is 'bilinear'; expected 'nearest'"),
        (
            "reconstruction__maps__error",
            ...,
            "reconstruction.map is 'error'; expected one of reconstruction.maps, pse, sal",
        ),
        ("threshold__score", 89.0, "threshold.score is 89.0, reconstruction.maps.error.score is 90.0; expected equal"),
        ("reconstruction__kind", "pca", "architecture is 'convolutional' for the kind 'pca'"),
        ("reconstruction__loss", None, "reconstruction.loss is null for the kind 'autoencoder'"),
        ("reconstruction__epochs", None, "reconstruction.epochs is null for the kind 'autoencoder'"),
        ("reconstruction__best_epoch", None, "reconstruction.best_epoch is null for the kind 'autoencoder'"),
        ("reconstruction__best_epoch", 13, "best_epoch is 13; expected at most the 12 epochs"),
        ("reconstruction__components", 481, "components is 481; expected at most the 480 values of an image"),
        ("fit__calibration_images", 5, "threshold.calibration_images is 4, fit.calibration_images is 5"),
        ("parity", {}, 'parity lacks "reference"'),
    ],
)
def test_fields_that_contradict_each_other_are_refused(path: str, value: object, message: str) -> None:
    refuse(message, **{path: value})


def test_training_facts_of_principal_components_are_refused() -> None:
    own = {"network__name": "pca", "reconstruction__architecture": "pca", "reconstruction__kind": "pca"}
    refuse("reconstruction.loss is 'mse' for the kind 'pca'", **own)
    refuse("reconstruction.epochs is 12 for the kind 'pca'", reconstruction__loss=None, **own)


def test_an_autoencoder_that_calls_itself_pca_is_refused() -> None:
    refuse("architecture is 'pca' for the kind 'autoencoder'", network__name="pca", reconstruction__architecture="pca")


@pytest.mark.parametrize("kinds", [("error",), ("pse",)])
def test_a_saliency_output_that_no_map_is_made_of_is_refused(kinds: tuple[str, ...]) -> None:
    outputs = [{"name": name, "height": 24, "width": 20} for name in ("reconstruction", "saliency")]
    refuse(
        r"\['reconstruction', 'saliency'\]; expected \['reconstruction'\] for", kinds=kinds, network__outputs=outputs
    )


@pytest.mark.parametrize("kinds", [("saliency",), ("error", "saliency-squared")])
def test_a_saliency_without_its_output_is_refused(kinds: tuple[str, ...]) -> None:
    outputs = [{"name": "reconstruction", "height": 24, "width": 20}]
    refuse(r"\['reconstruction'\]; expected \['reconstruction', 'saliency'\]", kinds=kinds, network__outputs=outputs)


def test_further_precisions_are_refused() -> None:
    manifest = json.loads(manifests.encode(reconstructions.manifest()))
    variant = {name: manifest[name] for name in ("threshold", "parity", "golden")}
    variant |= {"features": "features.onnx", "fidelity": None}
    variant["network"] = manifest["network"] | {"precision": "bf16"}
    refuse("variants.bf16 is there; expected none for a reconstruction detector", variants={"bf16": variant})


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"calibration_scores.pse": None}, "lacks the tensor calibration_scores.pse"),
        ({"calibration_scores": np.ones(4, np.float32)}, "holds the tensor calibration_scores; the manifest promises"),
        ({"calibration_scores.ssim": np.ones(4, np.float32)}, "holds the tensor calibration_scores.ssim"),
        ({"factors": np.ones(4, np.float32)}, "holds the tensor factors; the manifest promises"),
        ({"calibration_scores.error": np.ones(5, np.float32)}, r"float32 \(5,\); the manifest promises float32 \(4,\)"),
        ({"calibration_scores.error": np.ones(4)}, "is float64"),
        ({"calibration_scores.saliency": np.array([1, 2, np.nan, 3], np.float32)}, "NaN or infinity"),
        ({"calibration_scores.saliency": np.array([1, 2, 3, np.inf], np.float32)}, "NaN or infinity"),
        (
            {"calibration_scores.saliency_squared": np.array([1, 2, 4, 3], np.float32)},
            "calibration_scores.saliency_squared is not in ascending order",
        ),
    ],
)
def test_statistics_that_are_not_what_the_manifest_promises_are_refused(
    tensors: dict[str, np.ndarray | None], message: str, tmp_path: Path
) -> None:
    opened = reconstruction_bundle(tmp_path / "bundle")
    merged = {name: array for name, array in {**statistics(), **tensors}.items() if array is not None}
    with pytest.raises(BundleError, match=message):
        bundle.write(tmp_path / "other", opened.manifest, opened.features, merged, opened.golden)


def test_a_golden_map_of_another_size_is_refused(tmp_path: Path) -> None:
    opened = reconstruction_bundle(tmp_path / "bundle")
    golden = [bundle.Golden(opened.golden[0].frame, 1.0, np.ones((12, 10), np.float32))]
    with pytest.raises(BundleError, match=r"tensor map.0 is float32 \(12, 10\); the manifest promises"):
        bundle.write(tmp_path / "other", opened.manifest, opened.features, statistics(), golden)


def test_with_map_takes_threshold_and_p_values_of_that_kind(tmp_path: Path) -> None:
    opened = reconstruction_bundle(tmp_path / "bundle")
    for kind in KINDS:
        other = opened.with_map(kind)
        assert (other.manifest.reconstruction.map, other.manifest.threshold.score) == (kind, THRESHOLDS[kind])
        np.testing.assert_array_equal(other.calibration_scores, statistics()[bundle.score_tensor(kind)])
        assert other.p_value(0.6 * THRESHOLDS[kind]) == 3 / 5
        assert (other.hash, other.features, other.golden) == (opened.hash, opened.features, opened.golden)
        assert other.select(None).manifest == other.select("fp32").manifest == other.manifest
        assert other.with_map(None).manifest == opened.manifest


def test_a_map_that_is_not_offered_is_refused(tmp_path: Path) -> None:
    opened = reconstruction_bundle(tmp_path / "bundle", kinds=("error",))
    with pytest.raises(InputError, match="the bundle offers no map 'pse'; expected error"):
        opened.with_map("pse")


def test_what_padim_has_is_refused_in_one_line(tmp_path: Path) -> None:
    opened = reconstruction_bundle(tmp_path / "bundle")
    with pytest.raises(InputError, match="is a bundle of a reconstruction detector; this needs one of PaDiM"):
        opened.padim  # noqa: B018 -- a property that refuses
    with pytest.raises(InputError, match=r"the bundle holds no network in int8; expected fp32$"):
        opened.select("int8")


def test_a_bundle_of_padim_is_one(written: bundle.Bundle) -> None:
    assert written.padim is written.manifest
    assert written.manifest.detector == "padim"
    assert written.with_map(None) is written
    with pytest.raises(InputError, match="is a bundle of PaDiM, which has one kind of anomaly map; received 'error'"):
        written.with_map("error")


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    one, other = (reconstruction_bundle(tmp_path / name) for name in ("one", "other"))
    assert one.hash == other.hash
    assert msgspec.structs.replace(one.manifest, files={}) == reconstructions.manifest()
