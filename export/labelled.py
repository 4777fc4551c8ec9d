"""A labelled folder, on which two precisions of a detector are compared by AUROC."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError
from flawline.runtime.images import list_images

_GOOD = "good"


class Labelled(NamedTuple):
    """Images of both kinds.

    Attributes:
        paths: n images.
        defective: bool (n,), whether each shows a flaw.
    """

    paths: list[Path]
    defective: npt.NDArray[np.bool_]


def read_labelled(folder: Path) -> Labelled:
    """Lists a folder in the MVTec layout: `test/good` and `test/KIND`, or these folders themselves.

    Raises:
        InputError: It is no such folder, or one of the two kinds has no image.
    """
    root = folder / "test" if (folder / "test").is_dir() else folder
    if not (root / _GOOD).is_dir():
        raise InputError(f"{folder} holds no folder test/{_GOOD}; expected the MVTec layout: test/{_GOOD}, test/KIND")
    good = list_images(root / _GOOD)
    kinds = sorted(kind for kind in root.iterdir() if kind.is_dir() and kind.name != _GOOD)
    defective = [path for kind in kinds for path in list_images(kind)]
    if not defective:
        raise InputError(f"{root} holds no folder of defective images beside {_GOOD}; expected test/KIND")
    return Labelled([*good, *defective], np.arange(len(good) + len(defective)) >= len(good))
