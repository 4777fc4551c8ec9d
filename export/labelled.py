"""A labelled folder, on which two precisions of a detector are compared by AUROC."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError
from flawline.runtime.images import list_images

_GOOD = "good"
_LAYOUTS = f"a folder with test/{_GOOD} and test/KIND (the MVTec layout), or with {_GOOD} and KIND"


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
        InputError: It does not exist or is no such folder, or one of the two kinds has no image.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} {'is a file' if folder.exists() else 'does not exist'}; expected {_LAYOUTS}")
    root = folder / "test" if (folder / "test").is_dir() else folder
    if not (root / _GOOD).is_dir():
        raise InputError(f"{folder} holds no folder test/{_GOOD} or {_GOOD}; expected {_LAYOUTS}")
    good = list_images(root / _GOOD)
    kinds = sorted(kind for kind in root.iterdir() if kind.is_dir() and kind.name != _GOOD)
    defective = [path for kind in kinds for path in list_images(kind)]
    if not defective:
        raise InputError(f"{root} holds no folder of defective images beside {_GOOD}; expected test/KIND")
    return Labelled([*good, *defective], np.arange(len(good) + len(defective)) >= len(good))
