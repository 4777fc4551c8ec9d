"""The good images, read once before any long work and found to be alike."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from flawline.runtime.errors import InputError
from flawline.runtime.images import SMALLEST_SIDE_PX, read_image, require_size
from flawline.runtime.progress import progress
from flawline.runtime.resizing import Interpolation


class GoodImages(NamedTuple):
    """Images that can be read and are alike in mode.

    Attributes:
        paths: In the order given.
        channels: 1 for grey, 3 for RGB.
        size: Height and width in pixels, if all are of one size.
        smallest: Smallest height and smallest width, px.
        sha256: Hash of each file.
        bad: A message per image that was left out.
    """

    paths: list[Path]
    channels: Literal[1, 3]
    size: tuple[int, int] | None
    smallest: tuple[int, int]
    sha256: dict[Path, str]
    bad: list[str]

    def fingerprint(self, chosen: Sequence[Path]) -> str:
        """Hash over the contents of chosen images, whatever their names and order."""
        return hashlib.sha256("".join(sorted(self.sha256[path] for path in chosen)).encode()).hexdigest()

    def interpolation(self, height: int, width: int) -> Interpolation:
        """How they are brought to a size: by areas if every one of them shrinks on both sides."""
        return "area" if self.smallest[0] >= height and self.smallest[1] >= width else "linear"


def check_images(images: Sequence[Path], *, skip_bad: bool = False) -> GoodImages:
    """Reads every image once.

    Args:
        images: What to read.
        skip_bad: Whether an unreadable or tiny image is left out instead of being an error.

    Raises:
        InputError: An image cannot be read, is tiny or is not of the others' mode, or none is left.
    """
    sha256: dict[Path, str] = {}
    sizes: set[tuple[int, int]] = set()
    modes: dict[Literal[1, 3], Path] = {}
    bad: list[str] = []
    for path in progress(images, label="checking"):
        try:
            frame = read_image(path)
            require_size(frame, SMALLEST_SIDE_PX, path)
        except InputError as error:
            if not skip_bad:
                raise
            bad.append(str(error))
            continue
        modes.setdefault(1 if frame.ndim == 2 else 3, path)
        if len(modes) > 1:
            raise InputError(f"{modes[1]} is grey and {modes[3]} is in colour; expected all good images to be alike")
        sizes.add((frame.shape[0], frame.shape[1]))
        sha256[path] = hashlib.sha256(path.read_bytes()).hexdigest()
    if not sha256:
        raise InputError(f"none of {len(images)} images can be used; the first: {bad[0] if bad else 'there is none'}")
    return GoodImages(
        paths=list(sha256),
        channels=next(iter(modes)),
        size=next(iter(sizes)) if len(sizes) == 1 else None,
        smallest=(min(height for height, _ in sizes), min(width for _, width in sizes)),
        sha256=sha256,
        bad=bad,
    )
