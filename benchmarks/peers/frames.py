"""The frames that every case gets: one folder to fit on, one file of raw frames to score, the same bytes for all."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flawline.benchmarks.datasets import Item
from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule
from flawline.runtime.files import make_folder
from flawline.runtime.images import read_image, write_image
from flawline.runtime.progress import progress

if TYPE_CHECKING:
    import cv2
else:
    cv2 = LazyModule("cv2", "pip install opencv-python-headless")


@dataclass(frozen=True)
class Frames:
    """Frames of one size, in files as they come from a camera: grey or RGB.

    Attributes:
        fit: Folder of PNG files that everybody fits on.
        good: Folder of the flawless test frames; None without labels.
        defective: Folder of the others; None without labels.
        raw: File of all frames to score, one uint8 (height, width, 3) array after the other; the planes of a grey frame
            are equal.
        height: In px.
        width: In px.
        fit_images: Number of frames in `fit`.
        defects: bool (n,), whether each frame to score shows a flaw; None without labels, and `raw` then holds the
            frames that were fitted.
        count: n, frames in `raw`.
    """

    fit: Path
    good: Path | None
    defective: Path | None
    raw: Path
    height: int
    width: int
    fit_images: int
    defects: NDArray[np.bool_] | None
    count: int


def thinned(test: Sequence[Item], most: int) -> list[Item]:
    """At most so many of the labelled images: good ones and each kind of flaw in their share, spread evenly over each.

    Args:
        test: Labelled images.
        most: Images to keep, 1 or more.
    """
    by_kind = sorted(test, key=lambda item: item.kind)
    count = min(most, len(by_kind))
    # The middles of equal stretches: a kind gets its exact share, rounded up or down.
    return [by_kind[(2 * index + 1) * len(by_kind) // (2 * count)] for index in range(count)]


def write_frames(fit: Sequence[Path], test: Sequence[Item], folder: Path, size: tuple[int, int]) -> Frames:
    """Brings all images to one size, as a camera would, and writes them.

    Args:
        fit: Good images to fit on.
        test: Labelled images to score, or none.
        folder: Where to write; made if it is not there.
        size: Height and width of a frame, px.

    Raises:
        InputError: An image cannot be read, or the labelled ones are all of one class.
    """
    if not fit:
        raise InputError("no good images to fit on; expected at least one")
    defects = np.array([item.is_defective for item in test], bool)
    if test and (defects.all() or not defects.any()):
        raise InputError(
            f"all {len(test)} labelled images are {'defective' if defects.all() else 'good'}; expected both kinds"
        )
    good, defective, fitted = (folder / name for name in ("good", "defective", "fit"))
    for path in (good, defective, fitted):
        make_folder(path)
    jobs = [(path, fitted, not test) for path in fit]
    jobs += [(item.path, defective if item.is_defective else good, True) for item in test]
    raw = folder / "frames.u8"
    with raw.open("wb") as file:
        for index, (path, into, scored) in enumerate(progress(jobs, label="frames")):
            frame = _frame(path, size)
            write_image(into / f"{index:05}.png", frame)
            if scored:
                file.write((np.dstack([frame] * 3) if frame.ndim == 2 else frame).tobytes())
    return Frames(
        fit=fitted,
        good=good if test else None,
        defective=defective if test else None,
        raw=raw,
        height=size[0],
        width=size[1],
        fit_images=len(fit),
        defects=defects if test else None,
        count=len(test) or len(fit),
    )


def _frame(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    image = read_image(path)
    if image.shape[:2] != size:
        image = np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)
    return np.ascontiguousarray(image)
