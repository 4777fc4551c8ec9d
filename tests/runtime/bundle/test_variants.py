"""Further precisions in a bundle: what the manifest, the writer and the reader refuse."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from flawline.runtime import bundle, kernels
from flawline.runtime.bundle import manifest as facts
from flawline.runtime.errors import BundleError, InputError

QUANTISATION = bundle.Quantisation(calibration_images=4)


def variant(of: bundle.PadimManifest, precision: str, **changed: Any) -> bundle.PadimVariant:
    quantisation = QUANTISATION if precision.startswith("int8") else None
    fields = {
        "features": f"features.{precision}.onnx",
        "network": msgspec.structs.replace(of.network, precision=precision, quantisation=quantisation),
        "gaussian": of.gaussian,
        "threshold": of.threshold,
        "parity": of.parity,
        "fidelity": None,
        "golden": of.golden,
    }
    return bundle.PadimVariant(**{**fields, **changed})


def with_variants(of: bundle.PadimManifest, **variants: bundle.PadimVariant) -> bundle.PadimManifest:
    return msgspec.structs.replace(of, variants=variants)


@pytest.fixture
def base(parts: Callable[..., Any]) -> bundle.PadimManifest:
    return parts().manifest


def refuse(manifest: bundle.PadimManifest, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        facts.check(manifest)


def test_a_variant_of_the_bundles_own_precision_is_refused(base: bundle.PadimManifest) -> None:
    refuse(with_variants(base, fp32=variant(base, "fp32")), "variants.fp32 is the precision of the bundle itself")


def test_a_variant_whose_network_is_of_another_precision_is_refused(base: bundle.PadimManifest) -> None:
    refuse(
        with_variants(base, int8=variant(base, "fp16")), "variants.int8.network.precision is 'fp16'; expected 'int8'"
    )


@pytest.mark.parametrize(
    "name", ["statistics.safetensors", "features.int8.onnx", "golden.fp16.safetensors", "other.onnx"]
)
def test_a_feature_graph_that_is_none_is_refused(name: str, base: bundle.PadimManifest) -> None:
    refuse(with_variants(base, fp16=variant(base, "fp16", features=name)), f"variants.fp16.features is '{name}'")


def test_variants_cannot_vouch_for_a_file_between_them(base: bundle.PadimManifest) -> None:
    both = {name: variant(base, name, features="statistics.safetensors") for name in ("fp16", "bf16")}
    refuse(with_variants(base, **both), "features is 'statistics.safetensors'")


@pytest.mark.parametrize("shared", ["features.onnx", "features.fp16.onnx"])
def test_a_feature_graph_that_the_bundle_holds_may_be_shared(shared: str, base: bundle.PadimManifest) -> None:
    facts.check(with_variants(base, fp16=variant(base, "fp16"), bf16=variant(base, "bf16", features=shared)))


@pytest.mark.parametrize(("precision", "quantisation"), [("int8", None), ("fp16", QUANTISATION)])
def test_quantisation_belongs_to_8_bits(precision: str, quantisation: Any, base: bundle.PadimManifest) -> None:
    network = msgspec.structs.replace(base.network, precision=precision, quantisation=quantisation)
    refuse(msgspec.structs.replace(base, network=network), "network.quantisation is (null|there) for a network in")


@pytest.mark.parametrize(
    ("form", "rank", "message"),
    [
        ("triangle", 2, "gaussian.rank is 2 for factors in the form triangle"),
        ("woodbury", None, "gaussian.rank is None for factors in the form woodbury"),
        ("woodbury", 5, "gaussian.rank is 5; expected at least a block of 8 rows less"),
        ("woodbury", 90, "gaussian.rank is 90; expected at least a block of 8 rows less"),
    ],
)
def test_a_rank_that_does_not_go_with_the_form_is_refused(
    form: str, rank: int | None, message: str, base: bundle.PadimManifest
) -> None:
    refuse(
        msgspec.structs.replace(base, gaussian=msgspec.structs.replace(base.gaussian, form=form, rank=rank)), message
    )


def test_a_rule_that_a_variant_breaks_names_it(base: bundle.PadimManifest) -> None:
    wrong = msgspec.structs.replace(base.gaussian, count=7)
    refuse(with_variants(base, fp16=variant(base, "fp16", gaussian=wrong)), "variants.fp16: gaussian.count is 7")


def test_a_selected_manifest_holds_no_variants(base: bundle.PadimManifest) -> None:
    selected = with_variants(base, fp16=variant(base, "fp16")).select("fp16")
    assert (selected.precisions, selected.network.precision) == (("fp16",), "fp16")
    with pytest.raises(InputError, match="the bundle holds no network in int8"):
        base.select("int8")


def eight_bits(of: Any) -> Any:
    """The parts with their factors in 8 bits."""
    d = of.manifest.projection.dimension
    factors, scales = kernels.pack_int8(kernels.unpack(of.statistics["factors"], d))
    return of.with_manifest(gaussian={"factors": "int8"}).with_statistics(factors=factors, row_scales=scales)


def test_factors_in_8_bits_are_read_with_their_row_scales(parts: Callable[..., Any], tmp_path: Path) -> None:
    written = eight_bits(parts()).write(tmp_path / "int8.flaw")
    assert (written.statistics["factors"].dtype, written.statistics["row_scales"].dtype) == (np.int8, np.float16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda scales: None, "lacks the tensor row_scales"),
        (lambda scales: -scales, "tensor row_scales holds -.*; expected numbers from 0 on"),
        (lambda scales: scales * np.float16(np.nan), "tensor row_scales holds NaN or infinity"),
        (lambda scales: scales[..., :5].copy(), "tensor row_scales is float16"),
        (lambda scales: scales.astype(np.float32), "tensor row_scales is float32"),
    ],
)
def test_wrong_row_scales_are_refused(
    change: Callable[[np.ndarray], np.ndarray | None], message: str, parts: Callable[..., Any], tmp_path: Path
) -> None:
    given = eight_bits(parts())
    with pytest.raises(BundleError, match=message):
        given.with_statistics(row_scales=change(given.statistics["row_scales"])).write(tmp_path / "bad.flaw")
    assert list(tmp_path.iterdir()) == []


def test_row_scales_without_8_bits_are_refused(parts: Callable[..., Any], tmp_path: Path) -> None:
    scales = eight_bits(parts()).statistics["row_scales"]
    with pytest.raises(BundleError, match="holds the tensor row_scales"):
        parts().with_statistics(row_scales=scales).write(tmp_path / "bad.flaw")


def test_the_writer_refuses_variants_that_the_manifest_does_not_name(parts: Callable[..., Any], tmp_path: Path) -> None:
    given = parts()
    payload = bundle.Payload(given.features, given.statistics, given.golden)
    with pytest.raises(BundleError, match="variants fp16 received; the manifest says"):
        bundle.write(tmp_path / "b", given.manifest, *payload, variants={"fp16": payload})
    assert list(tmp_path.iterdir()) == []


def test_the_writer_refuses_another_graph_under_a_shared_name(parts: Callable[..., Any], tmp_path: Path) -> None:
    given = parts()
    manifest = with_variants(given.manifest, bf16=variant(given.manifest, "bf16", features="features.onnx"))
    payload = bundle.Payload(given.features + b"!", given.statistics, given.golden)
    with pytest.raises(BundleError, match=r"features.onnx of bf16 is another graph"):
        bundle.write(tmp_path / "b", manifest, given.features, given.statistics, given.golden, {"bf16": payload})
    assert list(tmp_path.iterdir()) == []


def test_a_variant_with_broken_tensors_is_refused_when_it_is_written(parts: Callable[..., Any], tmp_path: Path) -> None:
    given = parts()
    manifest = with_variants(given.manifest, fp16=variant(given.manifest, "fp16"))
    broken = replace(given).with_statistics(means=given.statistics["means"] * np.float32(np.nan))
    payload = bundle.Payload(given.features, broken.statistics, given.golden)
    with pytest.raises(BundleError, match=r"statistics.fp16.safetensors: tensor means holds NaN"):
        bundle.write(tmp_path / "b", manifest, given.features, given.statistics, given.golden, {"fp16": payload})
    assert list(tmp_path.iterdir()) == []


def test_a_variant_that_lacks_a_file_is_refused(parts: Callable[..., Any], tmp_path: Path, forge: Any) -> None:
    given = parts()
    manifest = with_variants(given.manifest, fp16=variant(given.manifest, "fp16"))
    payload = bundle.Payload(given.features, given.statistics, given.golden)
    written = bundle.write(tmp_path / "b", manifest, *payload, variants={"fp16": payload})
    (written.path / "golden.fp16.safetensors").unlink()
    files = {name: entry for name, entry in written.manifest.files.items() if name != "golden.fp16.safetensors"}
    forge(written.path, facts.encode(msgspec.structs.replace(manifest, files=files)))
    with pytest.raises(BundleError, match=r"does not list golden.fp16.safetensors, which a bundle in fp16 holds"):
        bundle.read(written.path)
