"""Classifiers in 8 bits: that they mean what the float classifier means, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from flawline.__main__ import main
from flawline.export import classifier_variants, fidelity
from flawline.export.classifier_addition import add_classifier_precision
from flawline.export.classifier_options import ClassifierOptions
from flawline.export.fit_classifier import fit_classifier_bundle
from flawline.export.parity import ParityError
from flawline.runtime import Detector
from flawline.runtime import bundle as bundles
from flawline.runtime.engines import open_scorer
from flawline.runtime.verification import verify


def options(**changed: object) -> ClassifierOptions:
    quick = {"epochs": 6, "learning_rate": 3e-3, "batch_size": 32, "threads": 1, "dimension": 20}
    head = {"head_epochs": 5} if "anomalies" in changed else {}
    return ClassifierOptions(**{**quick, **head, **changed})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def floats(archive: Path, others: Path, tmp_path_factory: pytest.TempPathFactory) -> bundles.Bundle:
    """A bundle with a second head."""
    return fit_classifier_bundle(archive, tmp_path_factory.mktemp("floats") / "digits.flaw", options(anomalies=others))


def export(bundle: bundles.Bundle, *words: object) -> int:
    return main(["export", str(bundle.path), *map(str, words), "--threads", "1"])


@pytest.fixture(scope="module", params=["int8", "int8-openvino"])
def both(
    request: pytest.FixtureRequest, floats: bundles.Bundle, archive: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[bundles.Bundle, str]:
    """That bundle with a further precision, and which."""
    out = tmp_path_factory.mktemp("both") / "both.flaw"
    assert export(floats, "--precision", request.param, "--images", archive, "--out", out) == 0
    return bundles.read(out), request.param


def test_an_added_precision_scores_its_golden_frames_and_the_first_one_is_as_it_was(
    both: tuple[bundles.Bundle, str], floats: bundles.Bundle
) -> None:
    path, precision = both[0].path, both[1]
    assert bundles.read(path).precisions == ("fp32", precision)
    assert bundles.read(path).features == floats.features
    for chosen in ("fp32", precision):
        bundle = bundles.read(path).select(chosen)
        with open_scorer(bundle, "auto", threads=1) as scorer:
            assert all(check.passed for check in verify(bundle, scorer))
    for name, array in floats.statistics.items():
        np.testing.assert_array_equal(bundles.read(path).statistics[name], array)


def test_an_added_precision_has_thresholds_of_its_own(both: tuple[bundles.Bundle, str]) -> None:
    own, other = both[0], bundles.read(both[0].path).select(both[1])
    assert not np.array_equal(own.statistics["class_thresholds"], other.statistics["class_thresholds"])
    np.testing.assert_allclose(own.statistics["class_thresholds"], other.statistics["class_thresholds"], rtol=0.1)
    for kind in ("mahalanobis", "head"):
        scores = other.statistics[bundles.score_tensor(kind)]
        assert other.with_map(kind).manifest.threshold.score in scores
    report = other.manifest.fidelity
    assert report is not None
    assert report["changed_classes"] <= max(1, 0.01 * report["images"])
    quantisation = other.manifest.network.quantisation
    assert quantisation is not None
    kept = {layer.layer for layer in quantisation.sensitivity if layer.kept_float}
    assert kept == {"features", "head/0", "head/1", "head"}, "projection and second head are of one position"
    assert len(quantisation.sensitivity) - len(kept) == 2, "the convolutions of LeNet"


def test_both_precisions_call_new_images_alike(both: tuple[bundles.Bundle, str], archive: Path) -> None:
    with np.load(archive) as data:
        images = data["x_test"]
    said = []
    for precision in ("fp32", both[1]):
        with Detector.open(both[0].path, precision=precision) as detector:
            said.append([detector(image) for image in images])
    same = [one.classification.label == other.classification.label for one, other in zip(*said, strict=True)]
    assert np.mean(same) > 0.98
    ratios = np.array([one.score / other.score for one, other in zip(*said, strict=True)])
    assert np.median(np.abs(ratios - 1)) < 0.05


def test_a_bundle_of_8_bits_alone(archive: Path, tmp_path: Path) -> None:
    words = ["--detector", "center-loss", "--precision", "int8", "--epochs", "2", "--threads", "1"]
    assert main(["fit", str(archive), "--out", str(tmp_path / "int8.flaw"), *words]) == 0
    bundle = bundles.read(tmp_path / "int8.flaw")
    assert bundle.precisions == ("int8",)
    assert bundle.manifest.fidelity is not None
    with open_scorer(bundle, "auto", threads=1) as scorer:
        assert all(check.passed for check in verify(bundle, scorer))


def test_a_network_that_calls_images_otherwise_is_refused(
    floats: bundles.Bundle, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = classifier_variants.fit_precision

    def otherwise(*given: object, **named: object) -> object:
        fitted = fit(*given, **named)  # type: ignore[arg-type]
        return fitted._replace(labels=["0"] * len(fitted.labels))

    # The planted fault: whatever it is shown, the quantised network calls it the first class.
    monkeypatch.setattr(classifier_variants, "fit_precision", otherwise)
    with pytest.raises(
        ParityError, match="held-out images is another than by the float classifier; the tolerance is 1%"
    ):
        add_classifier_precision(floats, "int8", archive, tmp_path / "out.flaw", threads=1)
    assert not (tmp_path / "out.flaw").exists()


def test_probabilities_are_compared_by_their_differences() -> None:
    near = fidelity.Scores(np.linspace(1e-8, 1e-6, 40, dtype=np.float32), 0.5)
    twice = near._replace(scores=near.scores * 2)
    assert fidelity.check("int8", near, twice, 0.01, relative=False)["score_error_max"] == pytest.approx(1e-6)
    with pytest.raises(ParityError, match="score error median"):
        fidelity.check("int8", near, twice, 0.01)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--precision", "fp16"], "a classifier in fp16; expected fp32 or int8, int8-openvino, int8-tensorrt"),
        (["--precision", "fp32"], "holds fp32 already"),
        (["--precision", "int8", "--skip-bad"], "--skip-bad does not go with the bundle of a classifier"),
    ],
)
def test_what_no_classifier_has_is_refused_in_one_line(
    words: list[str],
    complaint: str,
    floats: bundles.Bundle,
    archive: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert export(floats, *words, "--images", archive, "--out", tmp_path / "out.flaw") == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1


def test_other_images_than_those_of_the_fit_are_refused(
    floats: bundles.Bundle, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(archive) as data:
        np.savez(tmp_path / "fewer.npz", x_train=data["x_train"][:-1], y_train=data["y_train"][:-1])
    words = ["--precision", "int8", "--images", tmp_path / "fewer.npz", "--out", tmp_path / "out.flaw"]
    assert export(floats, *words) == 2
    assert "are not those that" in capsys.readouterr().err


def test_fit_refuses_other_precisions_before_anything_is_trained(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--detector", "center-loss", "--precision", "fp16", "--out", str(tmp_path / "out.flaw")]
    assert main(["fit", str(archive), *words]) == 2
    error = capsys.readouterr().err
    assert json.dumps(error).count("\\n") == 1
    assert "a classifier in fp16" in error
