"""Labelled images that a classifier is measured on, of its classes and of none, in folders and in files of many."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flawline.benchmarks.datasets import Item
from flawline.calibration.image_arrays import find_idx
from flawline.calibration.labelled_images import Images, read_labelled_images
from flawline.runtime.errors import InputError
from flawline.runtime.images import list_images
from flawline.runtime.plain_text import plain

_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class ArrayItem(Item):
    """One of the labelled images in a file, whose path goes on with its number.

    Attributes:
        images: All of them.
        index: Its place among them.
    """

    images: Images
    index: int


def read_items(data: Path, classes: Sequence[str]) -> list[Item]:
    """Lists the images to test on, of classes and of none, wherever they lie.

    Args:
        data: A folder with folders `test/NAME`; an `.npz` file with x_test and y_test; or a folder with IDX files, t10k-.
        classes: Names of the classes; the labels of a file are names likewise.

    Returns:
        The images with the names of their folders or labels, classes first, in their order.

    Raises:
        InputError: They cannot be read, or none is of a class.
        ResourceError: They would not fit into memory.
    """
    if not data.is_file() and find_idx(data, "test", 3, "images") is None:
        return read_folders(data, classes)
    labelled = read_labelled_images(data, part="test")
    rank = {name: index for index, name in enumerate(classes)}
    if not rank.keys() & set(labelled.classes):
        raise InputError(
            f"{data} has labels {_listed(labelled.classes)}; expected some that are a class of the bundle: {_listed(classes)}"
        )
    items = [
        ArrayItem(path=Path(name), kind=labelled.classes[label], images=labelled.images, index=index)
        for index, (name, label) in enumerate(zip(labelled.names, labelled.labels.tolist(), strict=True))
    ]
    return sorted(items, key=lambda item: rank.get(item.kind, len(rank)))


def read_folders(folder: Path, classes: Sequence[str]) -> list[Item]:
    """Lists the images of `test/NAME`: of the class of that name, or of none if no class has it.

    Args:
        folder: The one that holds `test`.
        classes: Names of the classes.

    Returns:
        The images with the names of their folders, classes first, in their order.

    Raises:
        InputError: There is no such folder, none is of a class, or one holds no image.
    """
    test = folder / "test"
    if not test.is_dir():
        received = f"no folder test/ in {folder}" if folder.is_dir() else f"{folder} is no folder"
        raise InputError(
            f"{received}; expected test/CLASS for classes of the bundle and test/OTHER for what is of none"
        )
    rank = {name: index for index, name in enumerate(classes)}
    names = [path.name for path in test.iterdir() if path.is_dir() and not path.name.startswith(".")]
    names.sort(key=lambda name: (rank.get(name, len(rank)), name))
    if not any(name in rank for name in names):
        raise InputError(
            f"{test} holds {_listed(names) or 'no folder'}; expected a folder with the name of a class of the bundle: "
            f"{_listed(classes)}"
        )
    return [Item(path, name) for name in names for path in list_images(test / name)]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(plain(name) for name in names[:_SHOWN]) + more
