"""Bundles of autoencoders, trained on real digits: what they say, what they repeat, and what the gate catches."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from flawline.benchmarks.metrics import image_auroc
from flawline.calibration.split import split
from flawline.detectors import training
from flawline.detectors.autoencoder import ImageShape
from flawline.detectors.training_images import ArrayImages, FileImages
from flawline.detectors.training_memory import training_bytes
from flawline.detectors.validation_split import validation_split
from flawline.export import autoencoder_graph, fit_autoencoder, gradients
from flawline.export.autoencoder_options import AutoencoderOptions
from flawline.export.fit_autoencoder import fit_autoencoder_bundle
from flawline.export.parity import ParityError
from flawline.export.reconstruction_parity import TOLERANCES
from flawline.runtime import Detector, memory
from flawline.runtime.bundle.manifest import RECONSTRUCTION_MAP_KINDS
from flawline.runtime.errors import InputError, ResourceError
from flawline.runtime.images import list_images, read_image, write_image


def options(**changes: object) -> AutoencoderOptions:
    quick = {"network": "fully-connected", "bottleneck": 16, "image_size": 28, "epochs": 2, "learning_rate": 3e-3}
    return AutoencoderOptions(**{**quick, "batch_size": 16, "threads": 1, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("network", ["fully-connected", "convolutional"])
def test_bundle_says_what_was_trained_and_scores_like_torch_in_float64(
    network: str, ones: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    made = options(network=network, epochs=4, loss="pse", sigma=1.0, maps=("pse", "saliency"))
    bundle = fit_autoencoder_bundle(list_images(ones), tmp_path / "ones.flaw", made, lines.append)
    manifest = bundle.manifest
    facts = manifest.reconstruction
    assert (facts.kind, facts.architecture, facts.components) == ("autoencoder", network, 16)
    assert (facts.loss, facts.epochs, manifest.map.sigma) == ("pse, sigma 1.0 px", 4, 1.0)
    assert 1 <= facts.best_epoch <= 4
    assert (facts.map, list(facts.maps)) == ("pse", ["pse", "saliency"])
    assert manifest.threshold.score == facts.maps["pse"].score > 0
    assert [output.name for output in manifest.network.outputs] == ["reconstruction", "saliency"]
    assert manifest.fit.images + manifest.fit.calibration_images == 60
    assert manifest.parity["reference"] == "torch in float64"
    assert manifest.parity["relative_error_max"] <= TOLERANCES["pse"]
    fitted, held_out = manifest.fit.images - round(manifest.fit.images / 10), round(manifest.fit.images / 10)
    (told,) = [line for line in lines if line.startswith("trained 4 epochs")]
    assert f"4 epochs on {fitted} images; weights are those of epoch {facts.best_epoch}: loss" in told
    assert f", on {held_out} for validation " in told


def test_every_map_tells_other_digits_from_those_it_was_trained_on(
    ones: Path, digits: tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]], tmp_path: Path
) -> None:
    made = options(epochs=40, learning_rate=1e-2, maps=RECONSTRUCTION_MAP_KINDS, sigma=1.0)
    bundle = fit_autoencoder_bundle(list_images(ones), tmp_path / "ones.flaw", made)
    others = digits[1] != 1
    for kind in RECONSTRUCTION_MAP_KINDS:
        with Detector.open(bundle.path, map=kind) as detector:
            scores = np.array([detector(frame).score for frame in digits[0]])
        # The largest error of single pixels says little of strokes of ink: one pixel off its edge is as wrong as can be.
        assert image_auroc(others, scores) > (0.7 if kind == "error" else 0.85), kind


def test_two_fits_with_one_seed_are_equal_byte_for_byte(ones: Path, tmp_path: Path) -> None:
    images = list_images(ones)
    first, second, other = (
        fit_autoencoder_bundle(images, tmp_path / name, options(seed=seed))
        for name, seed in (("a.flaw", 0), ("b.flaw", 0), ("c.flaw", 1))
    )
    assert first.hash == second.hash != other.hash


def test_images_in_memory_and_those_read_in_every_epoch_give_one_bundle(
    ones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = list_images(ones)
    held = fit_autoencoder_bundle(images, tmp_path / "held.flaw", options())
    monkeypatch.setattr(fit_autoencoder, "_SHARE_FOR_IMAGES", 0.0)
    read = fit_autoencoder_bundle(images, tmp_path / "read.flaw", options())
    assert held.hash == read.hash


@pytest.mark.parametrize(("spare_bytes", "in_memory"), [(-4, False), (4, True)])
def test_images_are_held_in_what_the_training_leaves_of_the_memory(
    spare_bytes: int, in_memory: bool, ones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []

    class Watched(FileImages):
        def in_memory(self) -> ArrayImages:
            held.append(len(self))
            return super().in_memory()

    images = list_images(ones)
    fitted, _ = split(images, false_reject_rate=0.05, calibration_images=None, group_by=None, seed=0)
    training = training_bytes("fully-connected", ImageShape(1, 28, 28), bottleneck=16, batch_size=16)
    # A quarter of what is left, within a byte of what the images take.
    available = training + 4 * len(fitted) * 28 * 28 + spare_bytes
    monkeypatch.setattr(fit_autoencoder, "FileImages", Watched)
    monkeypatch.setattr(memory, "available_bytes", lambda: available)
    fit_autoencoder_bundle(images, tmp_path / "made.flaw", options(epochs=1))
    assert held == ([len(fitted)] if in_memory else [])


def test_held_out_images_change_nothing_that_was_learnt(ones: Path, tmp_path: Path) -> None:
    images = list_images(ones)
    fitted, held_out = split(images, false_reject_rate=0.05, calibration_images=None, group_by=None, seed=0)
    before = fit_autoencoder_bundle(images, tmp_path / "before.flaw", options())
    for path, changes in ((held_out[0], False), (fitted[0], True)):
        folder = tmp_path / path.stem
        shutil.copytree(ones, folder)
        write_image(folder / path.name, 255 - read_image(path))
        after = fit_autoencoder_bundle(list_images(folder), tmp_path / f"{path.stem}.flaw", options())
        assert after.hash != before.hash
        assert (after.features != before.features) is changes


def test_images_of_one_group_are_on_one_side_of_the_validation(
    ones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, path in enumerate(list_images(ones)):
        shutil.copy(path, tmp_path / f"part{number // 7}-{path.name}")
    sides = []

    def seen(*arguments: object) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        sides.append((arguments[2], validation_split(*arguments)))  # type: ignore[arg-type]
        return sides[-1][1]

    monkeypatch.setattr(training, "validation_split", seen)
    images = list_images(tmp_path)
    made = options(group_by=r"part\d+")
    fit_autoencoder_bundle(images, tmp_path / "made.flaw", made)
    ((groups, (fitted, validated)),) = sides
    paths, _ = made.split(images)
    parts = np.array([path.name.split("-")[0] for path in paths])
    assert len(groups) == len(paths)
    assert len(set(parts)) > 4
    assert not set(parts[fitted]) & set(parts[validated])


def test_resumed_training_makes_the_bundle_of_one_that_ran_through(ones: Path, tmp_path: Path) -> None:
    images = list_images(ones)
    through = fit_autoencoder_bundle(images, tmp_path / "through.flaw", options(epochs=4))
    checkpoint = tmp_path / "run.pt"
    lines: list[str] = []
    fit_autoencoder_bundle(images, tmp_path / "half.flaw", options(checkpoint=checkpoint), lines.append)
    assert any(f"more --epochs, which go on from {checkpoint}, would" in line for line in lines)
    resumed = fit_autoencoder_bundle(images, tmp_path / "resumed.flaw", options(epochs=4, checkpoint=checkpoint))
    assert resumed.hash == through.hash


def test_colour_is_reconstructed_and_scored(ones: Path, tmp_path: Path) -> None:
    for path in list_images(ones):
        frame = read_image(path)
        write_image(tmp_path / path.name, np.stack([frame, np.roll(frame, 3, 0), 255 - frame], axis=2))
    made = options(network="convolutional", maps=("error", "saliency-squared"))
    bundle = fit_autoencoder_bundle(list_images(tmp_path), tmp_path / "colour.flaw", made)
    assert bundle.manifest.input.channels == 3
    assert bundle.manifest.parity["relative_error_max"] <= TOLERANCES["error"]


def wrong_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoencoder_graph, "_LEVELS", np.float32(254))


def wrong_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """ReLU lets every gradient pass."""
    monkeypatch.setitem(gradients.RULES, "Relu", lambda _backward, _node, gradient: {0: gradient})


@pytest.mark.parametrize(("fault", "kind"), [(wrong_levels, "error"), (wrong_gradient, "saliency")])
def test_network_that_is_exported_wrongly_is_caught_and_nothing_is_written(
    fault: Callable[[pytest.MonkeyPatch], None],
    kind: str,
    ones: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fault(monkeypatch)
    with pytest.raises(ParityError, match="torch in float64"):
        fit_autoencoder_bundle(list_images(ones), tmp_path / "made.flaw", options(maps=(kind,)))
    assert list(tmp_path.iterdir()) == []


def test_training_that_would_not_fit_into_memory_is_refused(ones: Path, tmp_path: Path) -> None:
    made = options(network="convolutional", image_size=1024, batch_size=4096)
    with pytest.raises(ResourceError, match=r"4096 images of 1024 x 1024 px at once .*; lower --batch-size"):
        fit_autoencoder_bundle(list_images(ones), tmp_path / "made.flaw", made)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": "resnet18"}, "--network is 'resnet18'; expected one of fully-connected, convolutional"),
        ({"network": "convolutional", "image_size": 30}, "--image-size is 30 px; expected a multiple of 4, the stride"),
        ({"maps": ("error", "heat")}, "--maps names 'heat'; expected some of error, pse, saliency, saliency-squared"),
        ({"maps": ("error", "error")}, "--maps is 'error,error'; expected at least one kind, and none twice"),
        ({"maps": ()}, "--maps is ''; expected at least one kind"),
        ({"sigma": 1.0}, "--sigma is that of --loss pse and of --maps pse; expected one of them as well"),
        ({"normalised": False}, "--unscaled is that of --maps pse, not of a loss; expected that map as well"),
        ({"normalised": False, "loss": "pse"}, "--unscaled is that of --maps pse, not of a loss; expected that map"),
        ({"epochs": 0}, "epochs 0: expected at least 1"),
        ({"learning_rate": float("nan")}, "learning rate nan: expected a number above 0"),
    ],
    ids=str,
)
def test_option_that_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as raised:
        options(**changes)
    assert message in str(raised.value)
