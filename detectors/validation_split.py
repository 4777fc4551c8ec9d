"""Which images a training learns from and which tell when it is to stop."""

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError

Indices = npt.NDArray[np.int64]


def validation_split(
    count: int, share: float, groups: npt.NDArray[np.int64] | None, generator: np.random.Generator
) -> tuple[Indices, Indices]:
    """Draws whole groups at random, each only if the number held out comes nearer to the share by it.

    So groups of 2 images and more may give less than the share. Where none would come nearer, the smallest is held out. Never
    are more than half of the images, unless the share is.

    Args:
        count: Images N.
        share: Of them that is held out for validation.
        groups: int64 (N,), the number of the group of each image; every image is its own group if None.
        generator: Shuffles the groups.

    Returns:
        int64 numbers, ascending, of the images to train on and of those held out.

    Raises:
        InputError: Groups are of another form, fewer than 2 images would be left to train on, or none held out.
    """
    if groups is None:
        groups = np.arange(count)
    if groups.dtype != np.int64 or groups.shape != (count,):
        raise InputError(f"groups {groups.dtype} {groups.shape}; expected int64 ({count},), one per image")
    names, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = generator.permutation(len(names))
    wanted = round(count * share)
    is_held_out = np.isin(group, _drawn(order, sizes, wanted) if wanted else order[:0])
    fitted, held_out = np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)
    if len(held_out) < 1 or len(fitted) < 2:
        of_groups = "" if len(names) == count else f" of {len(names)} groups"
        raise InputError(
            f"{count} images{of_groups}, {len(held_out)} of them held out for validation; expected at least 1 held out and 2 "
            "to train on"
        )
    return fitted, held_out


def _drawn(order: Indices, sizes: Indices, wanted: int) -> Indices:
    drawn, held_out, most = [], 0, max(wanted, sizes.sum() // 2)
    for name, size in zip(order.tolist(), sizes[order].tolist(), strict=True):
        if held_out + size - wanted < wanted - held_out and held_out + size <= most:
            drawn.append(name)
            held_out += size
    return np.array(drawn) if drawn else order[[np.argmin(sizes[order])]]
