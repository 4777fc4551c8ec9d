"""MNIST as the arrays of one `.npz` file: x_train, y_train, x_test and y_test."""

import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError

SIDE_PX = 28
CLASSES = 10
_NAMES = ("x_train", "y_train", "x_test", "y_test")
# Ten times what MNIST takes: an archive that unpacks to more is something else.
_MOST_BYTES = 550_000_000


class Digits(NamedTuple):
    """Images of digits, and which digits they are.

    Attributes:
        images: uint8 (N, 28, 28).
        labels: int64 (N,), 0 to 9.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def of(self, classes: range) -> npt.NDArray[np.uint8]:
        """The images of these digits, in their order in the file: uint8 (n, 28, 28)."""
        return self.images[np.isin(self.labels, classes)]


def read_mnist(path: Path) -> tuple[Digits, Digits]:
    """Reads the images to train on and those to test on.

    Args:
        path: The file, or a folder with `mnist.npz` in it or in its folder `mnist`.

    Raises:
        InputError: There is no such file, it cannot be read, or it holds something else.
    """
    file = next((one for one in (path, path / "mnist.npz", path / "mnist/mnist.npz") if one.is_file()), None)
    if file is None:
        raise InputError(f"{path}: no such file, and no folder with mnist.npz; expected MNIST, {', '.join(_NAMES)}")
    arrays = _read(file)
    return _digits(arrays, "train", file), _digits(arrays, "test", file)


def _read(file: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with zipfile.ZipFile(file) as archive:
            sizes = {entry.filename.removesuffix(".npy"): entry.file_size for entry in archive.infolist()}
        missing = [name for name in _NAMES if name not in sizes]
        if missing:
            raise InputError(f"no {', '.join(missing)} in it; expected {', '.join(_NAMES)}")
        if sum(sizes[name] for name in _NAMES) > _MOST_BYTES:
            raise InputError(f"its arrays unpack to more than {_MOST_BYTES:,} bytes")
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in _NAMES}
    # A damaged archive raises almost anything.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{file.name} is no MNIST in .npz: {reason}") from error


def _digits(arrays: dict[str, npt.NDArray[Any]], part: str, file: Path) -> Digits:
    images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (SIDE_PX, SIDE_PX):
        raise InputError(
            f"{file.name}: x_{part} is {images.dtype} {images.shape}; expected uint8 (N, {SIDE_PX}, {SIDE_PX})"
        )
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise InputError(
            f"{file.name}: y_{part} is {labels.dtype} {labels.shape}; expected whole numbers ({len(images)},), one per image"
        )
    if labels.size and not 0 <= labels.min() <= labels.max() < CLASSES:
        raise InputError(f"{file.name}: y_{part} is from {labels.min()} to {labels.max()}; expected 0 to {CLASSES - 1}")
    return Digits(images, labels.astype(np.int64))
