"""Images to train on: an array, which may be mapped from a file, or image files that are read when they are needed."""

import hashlib
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flawline.calibration.good_images import GoodImages
from flawline.calibration.labelled_images import Images, ImageSet
from flawline.calibration.resized_images import ResizedImages
from flawline.detectors.autoencoder import ImageShape
from flawline.runtime.errors import InputError
from flawline.runtime.resizing import Interpolation

Indices = npt.NDArray[np.int64]


class TrainingImages(Protocol):
    """Numbered images of one shape."""

    @property
    def shape(self) -> ImageShape:
        """Of each image."""

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hex, over the contents and the order of all images, and the size they are brought to."""

    def __len__(self) -> int:
        """How many there are."""

    def batch(self, indices: Indices) -> Tensor:
        """The images of these numbers, float32 (B, channels, height, width) from 0 to 1."""


class ArrayImages:
    """Images in an array.

    Args:
        images: uint8 (N, height, width) grey or (N, height, width, 3) RGB; `numpy.load(..., mmap_mode="r")` serves where
            it is larger than memory.
        fingerprint: Of the images; computed if None.

    Raises:
        InputError: Another kind of array, or an empty one.
    """

    def __init__(self, images: npt.NDArray[np.uint8], *, fingerprint: str | None = None) -> None:
        if (
            images.dtype != np.uint8
            or images.ndim not in (3, 4)
            or images.shape[3:] not in ((), (3,))
            or not images.size
        ):
            raise InputError(
                f"training images {images.dtype} {images.shape}; expected uint8 (N, height, width) or (N, height, width, 3)"
            )
        self._images = images
        self.shape = ImageShape(1 if images.ndim == 3 else 3, images.shape[1], images.shape[2])
        self.fingerprint = _fingerprint(images) if fingerprint is None else fingerprint

    def __len__(self) -> int:
        """How many there are."""
        return len(self._images)

    def batch(self, indices: Indices) -> Tensor:
        """The images of these numbers, float32 (B, channels, height, width) from 0 to 1."""
        return _unit(self._images[indices])


class ReadImages:
    """Images that are read or resized for every batch anew: memory holds one batch.

    Args:
        images: Of one shape.
        fingerprint: Of the images and the size they are brought to.
    """

    def __init__(self, images: Images, fingerprint: str) -> None:
        self._images = images
        height, width, *colours = images.shape
        self.shape = ImageShape(colours[0] if colours else 1, height, width)
        self.fingerprint = fingerprint

    @classmethod
    def of(cls, images: ImageSet) -> "ReadImages":
        """The images of a set."""
        return ReadImages(images.images, images.fingerprint)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._images)

    def batch(self, indices: Indices) -> Tensor:
        """The images of these numbers, float32 (B, channels, height, width) from 0 to 1.

        Raises:
            InputError: A file has been changed or removed meanwhile, and is no image of the same mode any more.
        """
        return _unit(np.stack([self._images[index] for index in indices]))

    def in_memory(self) -> ArrayImages:
        """The same images, read once, with the same fingerprint.

        Raises:
            InputError: A file cannot be read, or is of another mode.
        """
        return ArrayImages(self._images.stacked(), fingerprint=self.fingerprint)


class FileImages(ReadImages):
    """Good images in files.

    Args:
        good: The files, found to be alike in mode.
        height: To bring the images to, in pixels.
        width: Likewise.
        interpolation: Of images that are larger on both sides, as on the device; others are interpolated linearly.
    """

    def __init__(self, good: GoodImages, height: int, width: int, *, interpolation: Interpolation = "area") -> None:
        contents = "".join(good.sha256[path] for path in good.paths)
        shape = ImageShape(good.channels, height, width)
        super().__init__(
            ResizedImages(good.paths, good.channels, height, width, interpolation),
            hashlib.sha256(f"{tuple(shape)} {interpolation} {contents}".encode()).hexdigest(),
        )


def _fingerprint(images: npt.NDArray[np.uint8]) -> str:
    digest = hashlib.sha256(repr(images.shape).encode())
    for image in images:
        digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def _unit(images: npt.NDArray[np.uint8]) -> Tensor:
    planes = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(planes)).to(torch.float32).div_(255)
