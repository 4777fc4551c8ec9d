"""What a classifier is held to, and what memory it is held to."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from flawline.__main__ import main
from flawline.calibration.class_statistics import ClassOptions, class_moments
from flawline.calibration.memory import class_bytes
from flawline.detectors.classifiers import build_classifier
from flawline.detectors.training_images import ReadImages
from flawline.detectors.training_memory import classifier_training_bytes
from flawline.export import classifier_network
from flawline.export.classifier_options import ClassifierOptions
from flawline.export.classifier_parity import Network, ReferenceScores
from flawline.export.fit_classifier import fit_classifier_bundle
from flawline.export.parity import ParityError
from flawline.runtime import memory
from flawline.runtime.bundle.manifest import Input


def options(**changes: object) -> ClassifierOptions:
    return ClassifierOptions(**{"epochs": 1, "batch_size": 32, "threads": 1, **changes})  # type: ignore[arg-type]


def test_a_graph_whose_classes_are_others_is_caught(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = classifier_network.export_classifier

    def wrong(network: object) -> object:
        with torch.no_grad():
            network.fc3.bias[1] += 0.5  # type: ignore[attr-defined]
        graph = export(network)  # type: ignore[arg-type]
        with torch.no_grad():
            network.fc3.bias[1] -= 0.5  # type: ignore[attr-defined]
        return graph

    monkeypatch.setattr(classifier_network, "export_classifier", wrong)
    with pytest.raises(ParityError, match="does not give the class probabilities of torch in float64"):
        fit_classifier_bundle(archive, tmp_path / "a.flaw", options())
    assert list(tmp_path.iterdir()) == []


def test_images_that_take_much_of_the_memory_are_read_for_every_batch_to_the_same_bundle(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit_classifier_bundle(archive, tmp_path / "whole.flaw", options())
    assert 0 < whole.manifest.parity["class_probability_error_max"] <= 1e-3
    training_bytes = classifier_training_bytes(build_classifier("lenet", 4)[0], 32)
    # Of 384 images of 784 bytes, a quarter of what is left holds some.
    monkeypatch.setattr(memory, "available_bytes", lambda: training_bytes + 384 * 784)
    monkeypatch.setattr(ReadImages, "in_memory", lambda images: pytest.fail("all images at once"))
    monkeypatch.setattr(classifier_network, "_require_memory", lambda *_: None)
    assert fit_classifier_bundle(archive, tmp_path / "read.flaw", options()).hash == whole.hash


def test_more_than_the_memory_is_one_line(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = "--detector center-loss --network efficientnet-b0 --image-size 320000"
    assert main(["fit", str(archive), "--out", str(tmp_path / "a.flaw"), *given.split()]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "flawline fit: training efficientnet-b0 on 32 images of 320000 x 320000 px at once needs about"
    )


def test_classes_beyond_the_memory_are_one_line_before_training(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 1000 * 1280 * 1280 * 2 < class_bytes(1000, 1280, np.float32) < 1000 * 1280 * 1280 * 2.1
    monkeypatch.setattr(classifier_network, "class_bytes", lambda classes, *_: classes << 50)
    given = "--detector center-loss --dim 20"
    assert main(["fit", str(archive), "--out", str(tmp_path / "a.flaw"), *given.split()]) == 2
    said, line = capsys.readouterr().err.splitlines()[-2:]
    assert line.startswith("flawline fit: modelling 4 classes by 20 features needs about")
    assert "training:" not in said


def test_the_reference_holds_one_inverse_at_a_time() -> None:
    classes, dimension = 40, 128
    generator = np.random.default_rng(0)
    learnt = generator.normal(size=(3 * classes, dimension)).astype(np.float32)
    labels = np.repeat(np.arange(classes), 3)
    features = generator.normal(size=(2, dimension))
    frames = [np.zeros((28, 28), np.uint8)] * 2
    frame_input = Input(height=28, width=28, channels=1, interpolation="area", source_height=28, source_width=28)
    tracemalloc.start()
    model = ReferenceScores(
        Network("given", lambda images: features), learnt, labels, ClassOptions(), 0.01, frame_input, "mahalanobis"
    )
    found = model(frames)[:, 0, 0]
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < classes * dimension * dimension * 8 / 3
    ratios = []
    for index in range(classes):
        mean, covariance = class_moments(learnt[labels == index], ClassOptions())
        inverse = np.linalg.inv(covariance + 0.01 * np.eye(dimension))
        own, new = (
            np.sqrt(np.einsum("ni,ij,nj->n", x - mean, inverse, x - mean)) for x in (learnt[labels == index], features)
        )
        ratios.append(new / np.percentile(own, 97.5))
    np.testing.assert_allclose(found, np.min(ratios, axis=0), rtol=1e-9)
