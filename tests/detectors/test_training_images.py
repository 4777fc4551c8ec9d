"""Images to train on: values, shapes, fingerprints, and files that are read when they are needed."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from flawline.calibration.good_images import check_images
from flawline.calibration.labelled_images import read_labelled_images
from flawline.detectors.autoencoders import build_autoencoder
from flawline.detectors.training import train
from flawline.detectors.training_images import ArrayImages, FileImages, ReadImages
from flawline.detectors.training_options import TrainingOptions
from flawline.runtime.errors import InputError
from flawline.runtime.images import list_images, read_image, write_image


def test_grey_and_colour_arrays_become_planes_from_0_to_1() -> None:
    grey = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4) * 10
    colour = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 3), np.uint8)
    assert ArrayImages(grey).shape == (1, 3, 4)
    assert torch.equal(ArrayImages(grey).batch(np.array([1]))[0, 0], torch.from_numpy(grey[1] / np.float32(255)))
    images = ArrayImages(colour)
    assert (images.shape, len(images)) == ((3, 3, 4), 5)
    batch = images.batch(np.array([4, 0]))
    assert batch.dtype == torch.float32
    np.testing.assert_array_equal(batch.numpy(), colour[[4, 0]].transpose(0, 3, 1, 2) / np.float32(255))


def test_fingerprint_tells_contents_order_and_shape_apart(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 6, 8), np.uint8)
    changed = images.copy()
    changed[3, 5, 7] ^= 1
    others = [changed, images[::-1], images.reshape(4, 8, 6), images[:3]]
    prints = {ArrayImages(other).fingerprint for other in (images, *others)}
    assert len(prints) == 5
    np.save(tmp_path / "images.npy", images)
    assert ArrayImages(np.load(tmp_path / "images.npy", mmap_mode="r")).fingerprint == ArrayImages(images).fingerprint


@pytest.mark.parametrize("shape", [(0, 4, 4), (4, 4), (2, 4, 4, 4), (2, 0, 4)])
def test_array_that_holds_no_images_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="expected uint8"):
        ArrayImages(np.zeros(shape, np.uint8))


def test_array_of_floats_is_refused() -> None:
    with pytest.raises(InputError, match="training images float32"):
        ArrayImages(np.zeros((2, 4, 4), np.float32))  # type: ignore[arg-type]


def test_files_are_resized_and_read_only_when_asked_for(good_images: Path, tmp_path: Path) -> None:
    for path in list_images(good_images)[:3]:
        write_image(tmp_path / path.name, read_image(path))
    images = FileImages(check_images(list_images(tmp_path)), 24, 32)
    first, second, third = list_images(tmp_path)
    expected = [cv2.resize(read_image(path), (32, 24), interpolation=cv2.INTER_AREA) for path in (third, first)]
    second.unlink()
    np.testing.assert_array_equal(images.batch(np.array([2, 0]))[:, 0].numpy(), np.stack(expected) / np.float32(255))
    with pytest.raises(InputError, match="does not exist"):
        images.batch(np.array([1]))
    write_image(second, np.zeros((96, 128, 3), np.uint8))
    with pytest.raises(InputError, match="is RGB; expected grey like the good images"):
        images.batch(np.array([1]))


def test_fingerprint_of_files_tells_contents_and_size_apart(good_images: Path, tmp_path: Path) -> None:
    for path in list_images(good_images)[:2]:
        write_image(tmp_path / path.name, read_image(path))
    good = check_images(list_images(tmp_path))
    before = FileImages(good, 24, 32).fingerprint
    assert before == FileImages(check_images(list_images(tmp_path)), 24, 32).fingerprint
    assert before != FileImages(good, 32, 24).fingerprint
    write_image(list_images(tmp_path)[0], np.full((96, 128), 7, np.uint8))
    assert before != FileImages(check_images(list_images(tmp_path)), 24, 32).fingerprint


def test_network_learns_from_files(good_images: Path) -> None:
    images = FileImages(check_images(list_images(good_images)), 24, 32)
    network = build_autoencoder("convolutional", 24, 32, bottleneck=8)
    result = train(network, images, TrainingOptions(epochs=6, batch_size=8, learning_rate=3e-3))
    losses = [loss for loss, _ in result.epochs]
    assert losses[-1] < losses[0] / 2


def test_images_in_memory_are_those_of_the_files(good_images: Path) -> None:
    files = FileImages(check_images(list_images(good_images)[:5]), 24, 32)
    held = files.in_memory()
    assert (held.shape, len(held), held.fingerprint) == (files.shape, 5, files.fingerprint)
    assert torch.equal(held.batch(np.arange(5)), files.batch(np.arange(5)))


@pytest.mark.parametrize("colours", [(), (3,)])
def test_images_of_a_set_are_those_that_it_reads(tmp_path: Path, colours: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 20, 24, *colours), np.uint8)
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(6) % 2)
    for size in (None, 16):
        found = read_labelled_images(tmp_path / "set.npz", size)
        read = ReadImages.of(found)
        assert read.shape == (3 if colours else 1, *found.images.shape[:2])
        held = read.in_memory()
        assert held.fingerprint == read.fingerprint == found.fingerprint
        assert torch.equal(held.batch(np.array([4, 1])), read.batch(np.array([4, 1])))
        expected = found.images.stacked()[[4, 1]].reshape(2, *found.images.shape[:2], -1).transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(read.batch(np.array([4, 1])).numpy(), expected / np.float32(255))
