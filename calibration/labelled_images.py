"""Images with and without labels, wherever they lie: folders, `.npz` archives and IDX files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from flawline.calibration.image_arrays import ImageArrays, Part, find_idx, read_idx, read_npz
from flawline.calibration.resized_images import ResizedArray, ResizedImages
from flawline.runtime.errors import InputError
from flawline.runtime.images import ENDINGS, SMALLEST_SIDE_PX, list_images, read_image, require_size
from flawline.runtime.progress import progress
from flawline.runtime.resizing import Interpolation

Image = npt.NDArray[np.uint8]

MOST_CLASSES = 1 << 16
_FEWEST_IMAGES = 2


class Images(Protocol):
    """Numbered images of one shape, read or resized when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of each: (height, width) for grey, (height, width, 3) for RGB."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, index: int) -> Image:
        """One of them, uint8 of the shape."""

    def stacked(self) -> Image:
        """All of them at once, uint8 (N, height, width) or (N, height, width, 3)."""

    def chosen(self, indices: npt.NDArray[np.int64]) -> Images:
        """Those of these numbers, in that order."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one mode, brought to one size.

    Attributes:
        images: The images.
        names: Of each: its path, or the file and the image's number in it.
        sha256: Of each: hash over size and pixels as they are stored, in hex, so that exact duplicates are found whatever
            the format.
        interpolation: How images that are larger on both sides are brought to the size.
        stored_size: Height and width in pixels as they are stored, if all are of one size.
    """

    images: Images
    names: tuple[str, ...]
    sha256: tuple[str, ...]
    interpolation: Interpolation
    stored_size: tuple[int, int] | None

    def __len__(self) -> int:
        """How many there are."""
        return len(self.names)

    @property
    def channels(self) -> Literal[1, 3]:
        """1 for grey, 3 for RGB."""
        return 1 if len(self.images.shape) == 2 else 3

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hex, over contents and order of all images, and the size they are brought to."""
        text = f"{self.images.shape} {self.interpolation} {''.join(self.sha256)}"
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class LabelledImages(ImageSet):
    """Images of classes.

    Attributes:
        labels: int64 (N,), the class of each image, 0 to K - 1.
        classes: Names of the K classes, in the order of their numbers.
    """

    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]

    def chosen(self, indices: npt.NDArray[np.int64]) -> LabelledImages:
        """Those of these numbers, in that order, with all the classes."""
        rows = indices.tolist()
        return replace(
            self,
            images=self.images.chosen(indices),
            names=tuple(self.names[row] for row in rows),
            sha256=tuple(self.sha256[row] for row in rows),
            labels=self.labels[indices],
        )


def read_labelled_images(
    path: Path, size_px: int | None = None, *, part: Part = "train", interpolation: Interpolation | None = None
) -> LabelledImages:
    """Reads images of classes once, and finds them to be alike.

    Args:
        path: A folder with a folder of image files for each class, or with those in a folder `train` (or `test`); an `.npz`
            file with x_train and y_train (x_test and y_test), or images and labels; or a folder with IDX files,
            train-images-idx3-ubyte and train-labels-idx1-ubyte (t10k-), compressed (`.gz`) or not.
        size_px: Height and width to bring them to; None to leave them as they are.
        part: Which images, where there are both to train and to test on. Images to test on need not be of two classes, nor
            two of each.
        interpolation: Of images that are larger on both sides; if None, by areas where every one of them is.

    Raises:
        InputError: Files cannot be read, or are of different modes or, without `size_px`, sizes; fewer than two classes, a
            class of one image, or labels that cannot be.
        ResourceError: Arrays would not fit into memory.
    """
    if path.is_dir() and find_idx(path, part, 3, "images") is None:
        files = _class_folders(path, part)
        names = list(files)
        if not names:
            raise InputError(f"{path} holds no class; expected two or more: a folder of images for each")
        labels = np.repeat(np.arange(len(names)), [len(files[name]) for name in names])
        images = _of_files([file for name in names for file in files[name]], size_px, interpolation)
    else:
        arrays = _arrays(path, part, labelled=True)
        numbers, labels = np.unique(_whole(arrays), return_inverse=True)
        names = [str(number) for number in numbers.tolist()]
        images = _of_arrays(arrays, part, size_px, interpolation)
    _check_classes(path, names, labels, part)
    return LabelledImages(
        images.images,
        images.names,
        images.sha256,
        images.interpolation,
        images.stored_size,
        labels.astype(np.int64),
        tuple(names),
    )


def read_images(
    path: Path, size_px: int | None = None, *, part: Part = "train", interpolation: Interpolation | None = None
) -> ImageSet:
    """Reads images without regard to classes, as those out of a distribution are.

    Args:
        path: As for `read_labelled_images`, without labels; or a folder with image files in it or anywhere below.
        size_px: Likewise.
        part: Likewise.
        interpolation: Likewise.

    Raises:
        InputError: Files cannot be read, or are of different modes or, without `size_px`, sizes.
        ResourceError: Arrays would not fit into memory.
    """
    if path.is_dir() and find_idx(path, part, 3, "images") is None:
        return _of_files(list_images(_part_of(path, part), recursive=True), size_px, interpolation)
    return _of_arrays(_arrays(path, part, labelled=False), part, size_px, interpolation)


def duplicates(images: ImageSet, others: ImageSet) -> list[tuple[str, str]]:
    """Images that are in both sets, pixel for pixel as they are stored.

    Returns:
        Name in the first and name in the second, in the order of the first.
    """
    names = dict(zip(reversed(others.sha256), reversed(others.names), strict=True))
    return [(name, names[key]) for name, key in zip(images.names, images.sha256, strict=True) if key in names]


def _arrays(path: Path, part: Part, *, labelled: bool) -> ImageArrays:
    if path.is_dir():
        return read_idx(path, part, labelled=labelled)
    if path.suffix != ".npz" or not path.is_file():
        raise InputError(f"{path}: expected a folder of images, an .npz file, or a folder with IDX files")
    return read_npz(path, part, labelled=labelled)


def _whole(arrays: ImageArrays) -> npt.NDArray[np.int64]:
    labels = arrays.labels
    if labels is None or labels.min() < 0 or labels.max() >= MOST_CLASSES:
        received = "none" if labels is None else f"from {labels.min()} to {labels.max()}"
        raise InputError(f"{arrays.path}: labels {received}; expected 0 to {MOST_CLASSES - 1}")
    return labels.astype(np.int64)


def _part_of(path: Path, part: Part) -> Path:
    folder = path / part
    if folder.is_dir():
        return folder
    if part == "test":
        raise InputError(f"{path} holds no folder test; expected one with the images to test on")
    return path


def _class_folders(path: Path, part: Part) -> dict[str, list[Path]]:
    """Files of each class, by its name."""
    base = _part_of(path, part)
    try:
        entries = sorted(entry for entry in base.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise InputError(f"{base} cannot be read: {error.strerror}") from error
    stray = next((entry for entry in entries if entry.is_file() and entry.suffix.lower() in ENDINGS), None)
    if stray is not None:
        raise InputError(f"{stray} is in no class; expected a folder for each class in {base}, and all images in those")
    folders = [entry for entry in entries if entry.is_dir()]
    unclear = next((entry.name for entry in folders if not entry.name.isprintable()), None)
    if unclear is not None:
        raise InputError(f"{base} holds a folder {unclear!a}; expected names of classes that can be printed")
    return {folder.name: list_images(folder) for folder in folders}


def _check_classes(path: Path, names: list[str], labels: npt.NDArray[np.int64], part: Part) -> None:
    if part == "train" and len(names) < 2:
        raise InputError(
            f"{path} holds one class ({names[0]}); expected two or more: a folder for each, or labels that differ"
        )
    if len(names) > MOST_CLASSES:
        raise InputError(f"{path} holds {len(names)} classes; expected at most {MOST_CLASSES}")
    counts = np.bincount(labels, minlength=len(names))
    if part == "train" and counts.min() < _FEWEST_IMAGES:
        raise InputError(
            f"{path}: class {names[int(counts.argmin())]} has one image; expected {_FEWEST_IMAGES} or more of each class"
        )


def _of_files(paths: Sequence[Path], size_px: int | None, interpolation: Interpolation | None) -> ImageSet:
    sha256: list[str] = []
    sizes: dict[tuple[int, int], Path] = {}
    modes: dict[int, Path] = {}
    for path in progress(paths, label="checking"):
        image = read_image(path)
        require_size(image, SMALLEST_SIDE_PX, path)
        modes.setdefault(image.ndim, path)
        if len(modes) > 1:
            raise InputError(f"{modes[2]} is grey and {modes[3]} is in colour; expected all images to be alike")
        sizes.setdefault((image.shape[0], image.shape[1]), path)
        if size_px is None and len(sizes) > 1:
            (first, one), (second, other) = sizes.items()
            raise InputError(f"{one} is of {first} px and {other} of {second}; expected one size (height, width)")
        sha256.append(_hash(image))
    height, width = (size_px, size_px) if size_px is not None else next(iter(sizes))
    smallest = min(side[0] for side in sizes), min(side[1] for side in sizes)
    chosen = interpolation or _interpolation(smallest, height, width)
    images = ResizedImages(paths, 1 if 2 in modes else 3, height, width, chosen)
    size = next(iter(sizes)) if len(sizes) == 1 else None
    return ImageSet(images, tuple(str(path) for path in paths), tuple(sha256), chosen, size)


def _of_arrays(arrays: ImageArrays, part: Part, size_px: int | None, interpolation: Interpolation | None) -> ImageSet:
    require_size(arrays.images[0], SMALLEST_SIDE_PX, f"{arrays.path}: an image")
    stored = arrays.images.shape[1], arrays.images.shape[2]
    height, width = (size_px, size_px) if size_px is not None else stored
    chosen = interpolation or _interpolation(stored, height, width)
    return ImageSet(
        ResizedArray(arrays.images, height, width, chosen),
        tuple(f"{arrays.path}: {part} image {number}" for number in range(len(arrays.images))),
        tuple(_hash(image) for image in arrays.images),
        chosen,
        stored,
    )


def _interpolation(smallest: tuple[int, int], height: int, width: int) -> Interpolation:
    return "area" if smallest[0] >= height and smallest[1] >= width else "linear"


def _hash(image: Image) -> str:
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()
