"""Precisions of a detector, and the gates that a broken one does not pass."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, quantize_static

from flawline.__main__ import main
from flawline.export import fidelity, quantising, standalone_parity, variants
from flawline.export.fit import FitOptions, fit_bundle
from flawline.export.parity import ParityError
from flawline.export.standalone import compose_standalone
from flawline.runtime import bundle as bundles
from flawline.runtime.engines import open_scorer
from flawline.runtime.extractor import FeatureExtractor
from flawline.runtime.images import list_images, read_image, write_image
from flawline.runtime.precisions import PRECISIONS, Precision
from flawline.runtime.verification import verify

ADDED = [precision for precision in PRECISIONS if precision != "fp32"]


def options(network: Path, **changed: object) -> FitOptions:
    return FitOptions(
        backbone=str(network),
        layers=("fine", "coarse"),
        image_size=64,
        threads=1,
        smoothing_px=4.0,
        **{"dimension": 10, **changed},
    )


def export(bundle: Path, *words: object) -> int:
    return main(["export", str(bundle), *map(str, words)])


@pytest.fixture(scope="module", params=ADDED)
def added(
    request: pytest.FixtureRequest, tiny_bundle: Path, good_images: Path, tmp_path_factory: pytest.TempPathFactory
):
    """The tiny bundle with a further precision, and which."""
    if request.param == "bf16" and "avx512_bf16" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor does not compute in bf16")
    out = tmp_path_factory.mktemp("added") / "both.flaw"
    assert export(tiny_bundle, "--precision", request.param, "--images", good_images, "--out", out, "--threads", 1) == 0
    return out, request.param


def test_an_added_precision_scores_its_golden_frames_and_the_first_one_is_as_it_was(
    added: tuple[Path, Precision], tiny_bundle: Path
) -> None:
    path, precision = added
    before, after = bundles.read(tiny_bundle), bundles.read(path)
    assert after.precisions == ("fp32", precision)
    assert after.features == before.features
    for name, array in before.statistics.items():
        np.testing.assert_array_equal(after.statistics[name], array)
    for chosen in after.precisions:
        bundle = bundles.read(path).select(chosen)
        with open_scorer(bundle, "auto", threads=1) as scorer:
            assert all(check.passed for check in verify(bundle, scorer))
        assert bundle.manifest.network.precision == chosen


def test_an_added_precision_has_a_threshold_and_p_values_of_its_own(added: tuple[Path, Precision]) -> None:
    path, precision = added
    own, other = bundles.read(path), bundles.read(path).select(precision)
    assert own.manifest.threshold.false_reject_rate == other.manifest.threshold.false_reject_rate
    scores = [bundle.statistics["calibration_scores"] for bundle in (own, other)]
    assert not np.array_equal(*scores)
    np.testing.assert_allclose(*scores, rtol=0.1)
    assert other.manifest.threshold.score in scores[1]
    assert own.manifest.fidelity is None
    assert other.manifest.fidelity is not None


def test_a_network_that_only_the_engine_rounds_is_stored_once(added: tuple[Path, Precision]) -> None:
    path, precision = added
    graphs = sorted(file.name for file in path.glob("*.onnx"))
    assert graphs == (
        ["features.onnx"] if precision == "bf16" else sorted(["features.onnx", f"features.{precision}.onnx"])
    )


def test_a_bundle_of_8_bits_alone_says_how_it_came_to_them(
    good_images: Path, tiny_network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = fit_bundle(
        list_images(good_images), tmp_path / "int8.flaw", options(tiny_network, precision="int8"), lambda line: None
    )
    assert bundle.precisions == ("int8",)
    assert sorted(file.suffix for file in bundle.path.iterdir() if "features" in file.name) == [".onnx"]
    quantisation = bundle.manifest.network.quantisation
    assert quantisation is not None
    assert quantisation.calibration_images == bundle.manifest.fit.images
    assert len(quantisation.sensitivity) >= 3
    assert all(0 < layer.relative_error < 0.5 for layer in quantisation.sensitivity)
    with open_scorer(bundle, "auto", threads=1) as scorer:
        assert all(check.passed for check in verify(bundle, scorer))
    assert export(bundle.path, "--precision", "fp16", "--images", good_images, "--out", tmp_path / "more.flaw") == 2
    assert "holds no fp32 network to start from, only int8" in capsys.readouterr().err


Fault = Callable[[ModelProto], None]


def constant(model: ModelProto) -> None:
    """Every output is what it is for an empty frame: the first convolution sees nothing."""
    change_weight(model, 0, lambda weight: weight * 0)


def brighter(model: ModelProto) -> None:
    """The first convolution sees the frame without the mean taken off."""
    change_scalar(model, 0)


def divided(model: ModelProto) -> None:
    """The range of the frame is 0 to 1 where the network expects 0 to 255."""
    change_weight(model, 0, lambda weight: weight / 255)


def dropped(model: ModelProto) -> None:
    """The second convolution is skipped: its output is nothing."""
    change_weight(model, 1, lambda weight: weight * 0)


def change_weight(model: ModelProto, index: int, change: Callable[[np.ndarray], np.ndarray]) -> None:
    convolution = [node for node in model.graph.node if node.op_type == "Conv"][index]
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == convolution.input[1])
    weight.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(weight)).astype(np.float32), weight.name))


def change_scalar(model: ModelProto, value: float) -> None:
    centred = next(node for node in model.graph.node if node.op_type == "Sub")
    zero = next(tensor for tensor in model.graph.initializer if tensor.name == centred.input[1])
    zero.CopyFrom(numpy_helper.from_array(np.float32(value), zero.name))


@pytest.mark.parametrize("fault", [constant, brighter, divided, dropped])
@pytest.mark.parametrize("precision", ["int8", "int8-openvino"])
def test_a_broken_variant_is_refused_and_nothing_is_written(
    fault: Fault,
    precision: Precision,
    tiny_bundle: Path,
    good_images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calibrate = variants.calibrate

    def broken(features: bytes, *arguments: object, **named: object) -> object:
        model = onnx.load_from_string(features)
        fault(model)
        return calibrate(model.SerializeToString(), *arguments, **named)

    # The planted fault: the graph that is quantised is not the one that the float detector runs.
    monkeypatch.setattr(variants, "calibrate", broken)
    monkeypatch.setattr(quantising, "sensitivity", lambda *arguments, **named: [])
    status = export(tiny_bundle, "--precision", precision, "--images", good_images, "--out", tmp_path / "out.flaw")
    message = capsys.readouterr().err.splitlines()[-1]
    if fault is constant:
        # Such features cannot be modelled at all.
        assert (status, "the features of the good images do not vary" in message) == (2, True), message
    else:
        assert (status, "does not score like the float detector" in message) == (1, True), message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore")
def test_a_mahalanobis_step_in_8_bits_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    # What a whole-graph quantiser makes of a detector: features, distances and map in 8 bits each.
    bundle = bundles.read(tiny_bundle)
    source, target = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    source.write_bytes(compose_standalone(bundle))
    with FeatureExtractor(
        bundle.features,
        bundle.manifest.input,
        bundle.manifest.network,
        bundle.manifest.output_channels,
        backend="onnxruntime",
    ) as extractor:
        inputs = []
        for golden in bundle.golden:
            extractor.load(0, golden.frame)
            inputs.append({"frame": extractor.input.copy()})
    reader = type("Frames", (CalibrationDataReader,), {"get_next": lambda self: inputs.pop() if inputs else None})()
    quantize_static(str(source), str(target), reader)
    standalone_parity.check(source.read_bytes(), bundle)
    with pytest.raises(ParityError, match="does not score like"):
        standalone_parity.check(target.read_bytes(), bundle)


def scores(values: list[float], threshold: float = 2.0) -> fidelity.Scores:
    return fidelity.Scores(np.array(values, np.float32), threshold)


GOOD = [1.0 + i / 64 for i in range(40)]


NEAR = [1.0 + i * 1e-4 for i in range(40)]


@pytest.mark.parametrize(
    ("reference", "received", "features", "figure"),
    [
        (scores(GOOD), scores([1.3] * 40), 0.01, "score error median"),
        (scores(GOOD), scores([float("nan"), *GOOD[1:]]), 0.01, "score error median nan"),
        (scores(GOOD), scores([*GOOD[:-1], GOOD[-1] * 1.5]), 0.01, "score error p99 0.5"),
        (scores(NEAR), scores(NEAR[::-1]), 0.01, "rank correlation -1"),
        (scores(NEAR), scores([1.002] * 40), 0.01, "rank correlation 0"),
        (scores(NEAR[:4]), scores([1.002] * 4), 0.01, "rank correlation 0"),
        (scores(GOOD), scores(GOOD, threshold=1.1), 0.01, "flipped verdicts"),
        (scores(GOOD), scores(GOOD), 0.5, "feature error 0.5"),
        (scores(GOOD), scores(GOOD), float("nan"), "feature error nan"),
        (
            scores(GOOD)._replace(image_auroc=0.95),
            scores(GOOD)._replace(image_auroc=0.94),
            0.01,
            "image auroc drop 0.01",
        ),
    ],
)
def test_scores_that_mean_something_else_are_refused(
    reference: fidelity.Scores, received: fidelity.Scores, features: float, figure: str
) -> None:
    with pytest.raises(ParityError, match=f"does not score like the float detector: {figure}"):
        fidelity.check("int8", reference, received, features)


def test_the_order_of_a_few_images_that_score_alike_is_noise() -> None:
    assert fidelity.check("int8", scores(NEAR[:4]), scores(NEAR[3::-1]), 0.01)["rank_correlation"] == pytest.approx(-1)


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    defective = np.array([False, False, True, True])
    assert fidelity.image_auroc(np.array([1, 3, 2, 3], np.float32), defective) == 0.625


def test_auroc_is_compared_where_labels_exist(
    tiny_bundle: Path, good_images: Path, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (
        "--precision",
        "int8",
        "--images",
        good_images,
        "--labelled",
        tiny_dataset,
        "--out",
        tmp_path / "out",
        "--json",
    )
    assert export(tiny_bundle, *words) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert f"labelled images: AUROC {report['image_auroc']:.4f} instead of {report['float_image_auroc']:.4f}" in err
    assert report["image_auroc_drop"] == report["float_image_auroc"] - report["image_auroc"]
    assert report["float_image_auroc"] > 0.9


def test_factors_of_another_type_take_the_form_that_suits_them(
    good_images: Path, tiny_network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = options(tiny_network, fit_images=6, dimension=20)
    lines: list[str] = []
    bundle = fit_bundle(list_images(good_images), tmp_path / "few.flaw", few, lines.append)
    assert (bundle.manifest.gaussian.form, bundle.manifest.gaussian.rank) == ("woodbury", 5)
    assert any(line.startswith("6 images for 20 dimensions: in most directions only epsilon") for line in lines)
    words = ("--precision", "int8", "--images", good_images, "--factors", "int8", "--out", tmp_path / "out.flaw")
    assert export(bundle.path, *words) == 0
    assert "6 images for 20 dimensions" in capsys.readouterr().err
    added = bundles.read(tmp_path / "out.flaw").select("int8").manifest.gaussian
    assert (added.factors, added.form, added.rank) == ("int8", "triangle", None)


def test_equal_scores_pass_with_errors_of_zero() -> None:
    report = fidelity.check("int8", scores(GOOD), scores(GOOD), 0.0)
    assert (report["score_error_max"], report["rank_correlation"], report["flipped_verdicts"]) == (
        0,
        pytest.approx(1),
        0,
    )


def test_images_that_are_not_those_of_the_bundle_are_refused(
    tiny_bundle: Path, good_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [read_image(path) for path in list_images(good_images)]

    def refusal(name: str, frames: list[np.ndarray]) -> str:
        (tmp_path / name).mkdir()
        for index, frame in enumerate(frames):
            write_image(tmp_path / name / f"good_{index:02}.png", frame)
        words = ("--precision", "int8", "--images", tmp_path / name, "--out", tmp_path / "out.flaw")
        assert export(tiny_bundle, *words) == 2
        assert not (tmp_path / "out.flaw").exists()
        return capsys.readouterr().err.splitlines()[-1]

    assert "holds no image" in refusal("empty", [])
    assert "the images are 64 x 96 px; " in refusal("cropped", [frame[:, :64] for frame in images])
    assert "the images are in colour; " in refusal("colour", [np.stack([frame] * 3, 2) for frame in images])
    assert "not those that" in refusal("fewer", images[:30])
    assert "not those that" in refusal("others", [255 - frame for frame in images])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "neither --to nor --precision"),
        (("--precision", "int8"), "--precision int8 needs --images"),
        (("--precision", "fp32", "--images", "."), "holds fp32 already"),
        (("--to", "standalone", "--precision", "int8"), "the bundle holds no network in int8; expected fp32"),
        (("--to", "standalone", "--factors", "int8"), "--factors does not go with --to standalone"),
        (("--to", "standalone", "--form", "triangle"), "--form does not go with --to standalone"),
        (("--to", "standalone", "--skip-bad"), "--skip-bad does not go with --to standalone"),
        (("--precision", "int8", "--images", ".", "--labelled", "."), "holds no folder test/good"),
    ],
)
def test_export_says_what_it_needs(
    words: tuple[str, ...],
    message: str,
    tiny_bundle: Path,
    good_images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(good_images)
    assert export(tiny_bundle, "--out", tmp_path / "out", *words) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_standalone_is_exported_with_what_its_gate_found(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(tiny_bundle, "--to", "standalone", "--out", tmp_path / "part.onnx", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert 0 <= report["relative_error_max"] <= report["tolerance"]
    assert (tmp_path / "part.onnx").stat().st_size > 1000
