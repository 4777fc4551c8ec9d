"""A few labelled images to choose by (Gudi and others, 2022, section 4.1): none of them a good image of the fit."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flawline.calibration.good_images import GoodImages
from flawline.export.fitting import Say
from flawline.export.labelled import read_labelled
from flawline.runtime.errors import InputError
from flawline.runtime.images import read_image_bytes


class FewShot(NamedTuple):
    """What was drawn, some of both kinds.

    Attributes:
        paths: n images, by folder and name.
        defective: bool (n,), whether each shows a flaw.
    """

    paths: list[Path]
    defective: npt.NDArray[np.bool_]


def read_few_shot(folder: Path, shots: int, good: GoodImages, *, seed: int, say: Say) -> FewShot:
    """Draws labelled images.

    An image with the bytes of a good one is no example of anything new: as a good one it is left out, whatever part of the
    fit it has.

    Args:
        folder: Holds `good` and other folders, or `test/good` and `test/KIND`.
        shots: At most so many of each folder.
        good: The good images of the fit.
        seed: Of the draw.
        say: Takes a line on what is left out.

    Raises:
        InputError: It is no such folder, a defective image is among the good ones, or one of the two kinds has no image of
            its own.
    """
    labelled = read_labelled(folder)
    known = {sha256: path for path, sha256 in good.sha256.items()}
    by_kind: dict[Path, list[Path]] = {}
    known_count = 0
    for path, defective in zip(*labelled, strict=True):
        original = known.get(hashlib.sha256(read_image_bytes(path)).hexdigest())
        if original is None:
            by_kind.setdefault(path.parent, []).append(path)
        elif defective:
            raise InputError(f"{path}, labelled defective, is also the good image {original}; take it out of either")
        else:
            known_count += 1
    if known_count:
        say(f"left out of {folder}: {known_count} good images that are among those of the fit as well")
    drawn = {path for paths in by_kind.values() for path in _draw(paths, shots, seed)}
    chosen = [(path, bad) for path, bad in zip(*labelled, strict=True) if path in drawn]
    if all(bad for _, bad in chosen):
        raise InputError(
            f"{folder} holds {known_count} good images, all of which are among those of the fit; expected some of its own"
        )
    return FewShot([path for path, _ in chosen], np.array([bad for _, bad in chosen], np.bool_))


def _draw(paths: Sequence[Path], count: int, seed: int) -> list[Path]:
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(len(paths))
    return [paths[index] for index in order[:count].tolist()]
