"""Bundles of classifiers, trained on real digits: what they say, and that they say what torch does."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from flawline.benchmarks.metrics import image_auroc
from flawline.calibration.class_statistics import ClassOptions
from flawline.detectors.classifier_training import train_classifier
from flawline.detectors.classifiers import build_classifier
from flawline.export import classifier_network, fit_classifier
from flawline.export.backbone import trace
from flawline.export.classifier_options import ClassifierOptions
from flawline.export.classifier_parity import ReferenceScores
from flawline.export.classifier_reference import in_torch, reference_of
from flawline.export.fit_classifier import fit_classifier_bundle
from flawline.export.parity import ParityError
from flawline.runtime import Detector
from flawline.runtime.bundle import Bundle
from flawline.runtime.errors import InputError

Kept = list[object]


def options(**changes: object) -> ClassifierOptions:
    quick = {"epochs": 6, "learning_rate": 3e-3, "batch_size": 32, "threads": 1}
    head = {"head_epochs": 5} if "anomalies" in changes else {}
    return ClassifierOptions(**{**quick, **head, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def fitted(archive: Path, others: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, list[str], Kept]:
    """A bundle with a second head, what was said, and the networks in torch behind it."""
    lines: list[str] = []
    kept: Kept = []
    patch = pytest.MonkeyPatch()

    def train(network: object, *given: object, **named: object) -> object:
        kept.append(network)
        return train_classifier(network, *given, **named)  # type: ignore[arg-type]

    def layers(head: object) -> object:
        kept.append(head)
        return fit_classifier_layers(head)  # type: ignore[arg-type]

    fit_classifier_layers = fit_classifier.layers_of
    with patch.context() as patched:
        patched.setattr(classifier_network, "train_classifier", train)
        patched.setattr(fit_classifier, "layers_of", layers)
        out = tmp_path_factory.mktemp("bundle") / "digits.flaw"
        made = options(anomalies=others, dimension=20)
        return fit_classifier_bundle(archive, out, made, lines.append), lines, kept


def of_test(path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64] | None]:
    with np.load(path) as data:
        return data["x_test"], data.get("y_test")


def test_the_manifest_says_what_was_made(fitted: tuple[Bundle, list[str], Kept]) -> None:
    manifest = fitted[0].manifest
    fact = manifest.classifier
    assert fact.classes == ["0", "1", "4", "7"]
    assert (fact.score, set(fact.scores), fact.percentile) == ("mahalanobis", {"mahalanobis", "head"}, 97.5)
    assert (fact.loss, fact.center_weight, fact.head_images) == (
        "cross-entropy + 0.1 x center loss, rate 0.5",
        0.1,
        200,
    )
    assert 1 <= fact.best_epoch <= fact.epochs <= 6
    assert (manifest.projection.kind, manifest.projection.input_dimension, manifest.projection.dimension) == (
        "orthogonal",
        84,
        20,
    )
    assert (manifest.gaussian.tie, manifest.gaussian.count) == ("class", 4)
    assert (manifest.input.source_height, manifest.input.source_width) == (28, 28)
    assert (manifest.network.name, manifest.network.layers) == ("lenet", ["fc2"])
    assert manifest.fit.images + manifest.fit.calibration_images == 480
    assert manifest.threshold.score == fact.scores["mahalanobis"].score
    assert 0 < manifest.parity["relative_error_max"] <= 1e-3
    assert fitted[1][0].startswith("4 classes, 384 images to fit, 96 held out")
    beyond = np.mean(np.asarray(fitted[0].statistics["calibration_scores.mahalanobis"]) > 1)
    assert f"beyond every class's 97.5th percentile: {beyond:.1%} of the held-out images" in fitted[1]


@pytest.mark.parametrize("kind", ["mahalanobis", "head"])
def test_every_test_image_is_judged_as_by_torch_in_float64(
    kind: str, fitted: tuple[Bundle, list[str], Kept], archive: Path, others: Path
) -> None:
    bundle, _, (network, head, *_) = fitted
    frames = np.concatenate([of_test(archive)[0], of_test(others)[0]])
    manifest = bundle.with_map(kind).manifest
    reference = reference_of("torch", in_torch(network), np.asarray(bundle.statistics["projection"]), head)
    learnt, labels = _learnt(archive, bundle, network)
    model = ReferenceScores(reference, learnt, labels, ClassOptions(), _added(learnt, labels), manifest.input, kind)
    expected = model(list(frames))[:, 0, 0]
    with torch.no_grad():
        logits = network.double()(torch.from_numpy(frames[:, None] / 255.0)).numpy()
    network.float()
    with Detector.open(bundle.path, map=kind, backend="onnxruntime") as detector:
        results = [detector(frame) for frame in frames]
    scores = np.array([result.score for result in results])
    np.testing.assert_allclose(scores, expected, rtol=1e-3)
    threshold = manifest.threshold.score
    assert [result.verdict == "reject" for result in results] == (expected > threshold).tolist()
    assert [result.classification.label for result in results] == [
        manifest.classifier.classes[index] for index in logits.argmax(axis=1)
    ]


def test_digits_of_no_class_score_higher_and_those_of_a_class_are_told_apart(
    fitted: tuple[Bundle, list[str], Kept], archive: Path, others: Path
) -> None:
    (own, digits), (strange, _) = of_test(archive), of_test(others)
    for kind, least in (("mahalanobis", 0.85), ("head", 0.9)):
        with Detector.open(fitted[0].path, map=kind) as detector:
            results = [detector(frame) for frame in own]
            scores = [result.score for result in results] + [detector(frame).score for frame in strange]
        labels = [int(result.classification.label) for result in results]
        assert np.mean(np.array(labels) == digits) > 0.95
        assert image_auroc(np.arange(len(scores)) >= len(own), np.array(scores)) > least, kind


def test_two_fits_with_one_seed_are_equal_byte_for_byte(archive: Path, tmp_path: Path) -> None:
    first, second, other = (
        fit_classifier_bundle(archive, tmp_path / name, options(seed=seed, epochs=1))
        for name, seed in (("a.flaw", 0), ("b.flaw", 0), ("c.flaw", 1))
    )
    assert first.hash == second.hash != other.hash


def test_a_graph_that_is_another_network_is_caught(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = classifier_network.export_classifier

    def wrong(network: object) -> object:
        with torch.no_grad():
            network.fc2.bias.add_(0.5)  # type: ignore[attr-defined]
        graph = export(network)  # type: ignore[arg-type]
        with torch.no_grad():
            network.fc2.bias.sub_(0.5)  # type: ignore[attr-defined]
        return graph

    monkeypatch.setattr(classifier_network, "export_classifier", wrong)
    with pytest.raises(ParityError, match="does not score like torch features in float64"):
        fit_classifier_bundle(archive, tmp_path / "a.flaw", options(epochs=1))
    assert list(tmp_path.iterdir()) == []


def test_an_anomaly_that_is_an_image_of_a_class_is_named(archive: Path, others: Path, tmp_path: Path) -> None:
    with np.load(archive) as own, np.load(others) as strange:
        mixed = np.concatenate([strange["x_train"][:5], own["x_train"][7:8]])
    path = tmp_path / "mixed.npz"
    np.savez(path, images=mixed)
    with pytest.raises(
        InputError, match=r"mixed\.npz: train image 5, of no class, is also .*digits\.npz: train image 7; 1 image "
    ):
        fit_classifier_bundle(archive, tmp_path / "a.flaw", options(anomalies=path))


def test_a_trained_network_from_an_onnx_file_serves_as_well(archive: Path, others: Path, tmp_path: Path) -> None:
    network = build_classifier("lenet", 4, seed=3)[0].eval()
    path = tmp_path / "net.onnx"
    model = trace(network, (1, 28, 28), ["logits"], title="net")
    path.write_bytes(model.SerializeToString())
    relu = next(node.output[0] for node in reversed(model.graph.node) if node.op_type == "Relu")
    made = ClassifierOptions(
        network=str(path),
        layer=relu,
        image_size=28,
        mean=(0.0,),
        std=(255.0,),
        threads=1,
        anomalies=others,
        head_epochs=2,
    )
    bundle = fit_classifier_bundle(archive, tmp_path / "net.flaw", made)
    fact = bundle.manifest.classifier
    assert (fact.loss, fact.center_weight, fact.epochs, fact.best_epoch) == (None,) * 4
    frame = of_test(archive)[0][0]
    with torch.no_grad():
        expected = network(torch.from_numpy(frame[None, None] / np.float32(255))).softmax(dim=1)[0]
    with Detector.open(bundle.path) as detector:
        found = detector(frame).classification
    assert found is not None
    assert found.label == fact.classes[int(expected.argmax())]
    assert found.probability == pytest.approx(float(expected.max()), rel=1e-4)


def _learnt(archive: Path, bundle: Bundle, network: object) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Projected features of the fitted images by torch, float32, and their classes."""
    from flawline.calibration.labelled_images import read_labelled_images
    from flawline.calibration.split import split_classes

    images = read_labelled_images(archive, 28)
    fitted, _ = split_classes(images.labels, false_reject_rate=0.05, calibration_images=None, seed=0)
    chosen = images.chosen(fitted)
    projection = np.asarray(bundle.statistics["projection"], np.float64)
    return (in_torch(network)(chosen.images.stacked()) @ projection.T).astype(np.float32), chosen.labels  # type: ignore[arg-type]


def _added(learnt: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> float:
    variances = [learnt[labels == index].astype(np.float64).var(axis=0, ddof=1).mean() for index in range(4)]
    return 0.01 * float(np.mean(variances))
