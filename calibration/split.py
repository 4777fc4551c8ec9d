"""Which good images are fitted and which are held out for the threshold."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from flawline.calibration.conformal import images_needed
from flawline.runtime.errors import InputError

MINIMUM_FIT_IMAGES = 3
_DEFAULT_SHARE = 0.2


def split(
    images: Sequence[Path],
    *,
    false_reject_rate: float,
    calibration_images: int | None,
    group_by: str | None,
    seed: int,
) -> tuple[list[Path], list[Path]]:
    """Splits good images into those to fit and those to calibrate the threshold on.

    Images of one group (shots of one part, frames of one roll) stay together: correlated images on both sides would
    make the threshold too low.

    Args:
        images: All good images.
        false_reject_rate: R; at least 1 / R - 1 images are held out.
        calibration_images: Images to hold out; a fifth, or what the rate needs if that is more, if None.
        group_by: Regular expression searched in the file name; its first group (or the whole match) names the image's
            group. Every image is its own group if None.
        seed: Seed of the shuffle.

    Returns:
        Images to fit and images held out, each in the order of `images`.

    Raises:
        InputError: The images do not suffice, or the expression is wrong or does not match an image.
    """
    needed = images_needed(false_reject_rate)
    wanted = calibration_images if calibration_images is not None else max(needed, round(_DEFAULT_SHARE * len(images)))
    spare = len(images) - MINIMUM_FIT_IMAGES
    if wanted < needed or wanted > spare:
        _refuse(len(images), wanted, spare, false_reject_rate, needed)
    groups = _groups(images, group_by)
    names = sorted(groups)
    held_out: set[Path] = set()
    for index in np.random.Generator(np.random.Philox(key=seed)).permutation(len(names)).tolist():
        if len(held_out) >= wanted:
            break
        held_out.update(groups[names[index]])
    fitted = [image for image in images if image not in held_out]
    if len(fitted) < MINIMUM_FIT_IMAGES:
        raise InputError(
            f"--group-by '{group_by}' makes {len(names)} groups of {len(images)} images: holding out {wanted} leaves "
            f"{len(fitted)} to fit, and at least {MINIMUM_FIT_IMAGES} are needed; use a finer expression"
        )
    return fitted, [image for image in images if image in held_out]


def split_classes(
    labels: npt.NDArray[np.int64], *, false_reject_rate: float, calibration_images: int | None, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Splits images of classes likewise, at random, but that at least two of each class are fitted.

    Args:
        labels: int64 (N,), the class of each; every class has two images or more.
        false_reject_rate: R; at least 1 / R - 1 images are held out.
        calibration_images: Images to hold out; a fifth, or what the rate needs if that is more, if None.
        seed: Seed of the shuffle.

    Returns:
        Numbers of the images to fit and of those held out, ascending.

    Raises:
        InputError: The images do not suffice.
    """
    needed = images_needed(false_reject_rate)
    wanted = calibration_images if calibration_images is not None else max(needed, round(_DEFAULT_SHARE * len(labels)))
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(len(labels))
    first = np.unique(labels[order], return_index=True)[1]
    rest = np.delete(np.arange(len(labels)), first)
    second = rest[np.unique(labels[order][rest], return_index=True)[1]]
    spare = np.delete(order, np.concatenate((first, second)))
    if not len(spare):
        raise InputError(
            f"{len(labels)} images of {len(first)} classes; expected at least {2 * len(first) + 1}: two of each class to fit "
            "and 1 held out for the threshold"
        )
    if not needed <= wanted <= len(spare):
        raise InputError(
            f"{len(labels)} images of {len(first)} classes and a false-reject rate of {false_reject_rate:g}, which needs "
            f"{needed} held-out images; {wanted} were to be held out and two of each class must remain to fit; "
            + _smallest_rate(wanted, len(spare), needed)
        )
    held_out = np.zeros(len(labels), bool)
    held_out[spare[:wanted]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def draw(images: Sequence[Path], count: int, seed: int) -> list[Path]:
    """Draws some of the images at random, in their order.

    Args:
        images: What to draw from.
        count: How many.
        seed: Seed of the draw.

    Raises:
        InputError: There are fewer images than that, or too few are asked for.
    """
    if not MINIMUM_FIT_IMAGES <= count <= len(images):
        raise InputError(
            f"{count} images to fit were asked for; expected {MINIMUM_FIT_IMAGES} to {len(images)}, what is left after "
            "holding out those for the threshold"
        )
    chosen = np.random.Generator(np.random.Philox(key=seed)).choice(len(images), count, replace=False)
    return [images[index] for index in np.sort(chosen).tolist()]


def _refuse(images: int, wanted: int, spare: int, false_reject_rate: float, needed: int) -> None:
    if spare < 1:
        raise InputError(
            f"{images} good images; expected at least {MINIMUM_FIT_IMAGES + 1}: {MINIMUM_FIT_IMAGES} to fit and 1 held "
            "out for the threshold"
        )
    raise InputError(
        f"{images} good images and a false-reject rate of {false_reject_rate:g}, which needs {needed} held-out images; "
        f"{wanted} were to be held out and {MINIMUM_FIT_IMAGES} must remain to fit; "
        + _smallest_rate(wanted, spare, needed)
    )


def _smallest_rate(wanted: int, spare: int, needed: int) -> str:
    possible = min(max(wanted, 1), spare) if wanted < needed else spare
    return f"the smallest rate that can be had is {1 / (possible + 1):.4g} (--false-reject-rate)"


def group_numbers(images: Sequence[Path], group_by: str) -> npt.NDArray[np.int64]:
    """The number of each image's group, int64 (N,): see `split`.

    Raises:
        InputError: The expression is wrong or does not match an image.
    """
    groups = _groups(images, group_by)
    numbers = {image: number for number, name in enumerate(sorted(groups)) for image in groups[name]}
    return np.array([numbers[image] for image in images], np.int64)


def _groups(images: Sequence[Path], group_by: str | None) -> dict[str, list[Path]]:
    if group_by is None:
        return {str(image): [image] for image in images}
    try:
        expression = re.compile(group_by)
    except re.error as error:
        raise InputError(f"--group-by '{group_by}' is no regular expression: {error}") from error
    groups: dict[str, list[Path]] = {}
    for image in images:
        match = expression.search(image.name)
        if match is None:
            raise InputError(f"--group-by '{group_by}' matches nothing in {image.name}")
        groups.setdefault(match.group(1) if expression.groups else match.group(), []).append(image)
    return groups
