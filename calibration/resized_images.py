"""Images at the size that a detector sees: files, read when they are needed so that memory holds one, or an array."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from flawline.runtime.images import read_image, require_mode
from flawline.runtime.resizing import Interpolation, resize_into

Image = npt.NDArray[np.uint8]


class ResizedImages:
    """Image files of one mode, brought to one size as on the device.

    Args:
        paths: The files.
        channels: 1 for grey, 3 for RGB.
        height: To bring the images to, px.
        width: Likewise.
        interpolation: Of images that are larger on both sides.

    Attributes:
        shape: Of each image: (height, width) for grey, (height, width, 3) for RGB.
    """

    def __init__(
        self, paths: Sequence[Path], channels: int, height: int, width: int, interpolation: Interpolation
    ) -> None:
        self._paths = paths
        self._channels = channels
        self._interpolation: Interpolation = interpolation
        self.shape = (height, width) if channels == 1 else (height, width, channels)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._paths)

    def __getitem__(self, index: int) -> Image:
        """Reads an image, uint8 of the shape.

        Raises:
            InputError: The file cannot be read, or is of another mode.
        """
        path = self._paths[index]
        frame = read_image(path)
        require_mode(frame, self._channels, path)
        image = np.empty(self.shape, np.uint8)
        resize_into(frame, image, self._interpolation)
        return image

    def __iter__(self) -> Iterator[Image]:
        """Reads each, in the order of the files; see `__getitem__`."""
        return (self[index] for index in range(len(self)))

    def chosen(self, indices: npt.NDArray[np.int64]) -> ResizedImages:
        """Those of these numbers, in that order."""
        paths = [self._paths[index] for index in indices.tolist()]
        channels = 1 if len(self.shape) == 2 else self.shape[2]
        return ResizedImages(paths, channels, self.shape[0], self.shape[1], self._interpolation)

    def stacked(self) -> Image:
        """All of them at once, uint8 (N, height, width) or (N, height, width, 3); see `__getitem__`."""
        images = np.empty((len(self), *self.shape), np.uint8)
        for slot, image in zip(images, self, strict=True):
            slot[...] = image
        return images


class ResizedArray:
    """Images of an array, brought to one size when they are needed.

    Args:
        images: uint8 (N, h, w) grey or (N, h, w, 3) RGB.
        height: To bring the images to, px.
        width: Likewise.
        interpolation: Of images that are larger on both sides.

    Attributes:
        shape: Of each image: (height, width) for grey, (height, width, 3) for RGB.
    """

    def __init__(self, images: Image, height: int, width: int, interpolation: Interpolation) -> None:
        self._images = images
        self._interpolation: Interpolation = interpolation
        self.shape: tuple[int, ...] = (height, width, *images.shape[3:])

    def __len__(self) -> int:
        """How many there are."""
        return len(self._images)

    def __getitem__(self, index: int) -> Image:
        """One image, uint8 of the shape."""
        image = np.empty(self.shape, np.uint8)
        resize_into(self._images[index], image, self._interpolation)
        return image

    def __iter__(self) -> Iterator[Image]:
        """Each, in order."""
        return (self[index] for index in range(len(self)))

    def chosen(self, indices: npt.NDArray[np.int64]) -> ResizedArray:
        """Those of these numbers, in that order."""
        return ResizedArray(self._images[indices], self.shape[0], self.shape[1], self._interpolation)

    def stacked(self) -> Image:
        """All of them at once, uint8 (N, height, width) or (N, height, width, 3); without a copy if nothing is resized."""
        if self._images.shape[1:] == self.shape:
            return self._images
        images = np.empty((len(self), *self.shape), np.uint8)
        for slot, image in zip(images, self._images, strict=True):
            resize_into(image, slot, self._interpolation)
        return images
