"""Labelled images: folders in the MVTec layout, and solar cells from a package."""

import csv
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flawline.runtime.errors import InputError, MissingExtraError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
ELPV_LICENCE = "CC BY-NC-SA 4.0, not for commercial use"
ELPV_GOOD, ELPV_DEFECTIVE = 0.0, 1.0
SHARED_FIT_IMAGES = 300


@dataclass(frozen=True)
class Item:
    """One labelled image.

    Attributes:
        path: The image file.
        kind: "good", or the name of the flaw.
        mask: Image of the same size, 128 or more where flawed; None for a good image or where there is no mask.
    """

    path: Path
    kind: str
    mask: Path | None = None

    @property
    def is_defective(self) -> bool:
        """Whether the image shows a flaw."""
        return self.kind != "good"


@dataclass(frozen=True)
class Split:
    """What a detector is fitted on, what its threshold is set on, and what it is measured on: disjoint."""

    fit: tuple[Path, ...]
    calibration: tuple[Path, ...]
    test: tuple[Item, ...]


@dataclass(frozen=True)
class Dataset:
    """Good images to draw from and labelled images to measure on.

    Attributes:
        name: Short name for reports.
        good: Good images that may be fitted on.
        test: Labelled images with a fixed place in the test set.
        terms: Licence or terms of use, if known.
        shares_good: Whether the good images that a split leaves over join its test set. True for a data set that
            comes without a division into training and test.
    """

    name: str
    good: tuple[Path, ...]
    test: tuple[Item, ...]
    terms: str | None = None
    shares_good: bool = False

    @property
    def has_masks(self) -> bool:
        """Whether flaws are marked pixel by pixel."""
        return any(item.mask is not None for item in self.test)

    def split(self, fit_images: int | None, calibration_images: int, seed: int) -> Split:
        """Draws images to fit and to calibrate on, without replacement.

        The order is that of raw Philox words, so that one seed means one split for ever.

        Args:
            fit_images: How many to fit on; None for all that calibration leaves, or for 300 where the test set takes
                the good images that are left over.
            calibration_images: How many to hold out for the threshold.
            seed: Seed of the draw, 0 or more.

        Raises:
            InputError: There are fewer good images than asked for, or none would be left to test on.
        """
        if fit_images is None and self.shares_good:
            fit_images = SHARED_FIT_IMAGES
        wanted = calibration_images + (1 if fit_images is None else fit_images)
        if wanted > len(self.good):
            raise InputError(
                f"{self.name}: {wanted} good images asked for to fit and calibrate, {len(self.good)} are there; "
                "ask for fewer, for instance with --fit-images N"
            )
        words = np.random.Philox(key=seed).random_raw(len(self.good))
        drawn = [self.good[i] for i in np.argsort(words, kind="stable")]
        end = len(drawn) if fit_images is None else calibration_images + fit_images
        left = tuple(Item(path, "good") for path in sorted(drawn[end:])) if self.shares_good else ()
        test = left + self.test
        if not any(not item.is_defective for item in test):
            hint = (
                f"fit on fewer of the {len(self.good)}: --fit-images N"
                if self.shares_good
                else "put some into test/good"
            )
            raise InputError(f"{self.name}: no good image is left to test on; {hint}")
        return Split(fit=tuple(drawn[calibration_images:end]), calibration=tuple(drawn[:calibration_images]), test=test)


def open_dataset(spec: str) -> Dataset:
    """Opens a data set by name ("elpv-mono", "elpv-poly") or by folder (MVTec layout).

    Raises:
        InputError: The folder is not there or not in the layout.
        MissingExtraError: The package with the solar cells is not installed.
    """
    if spec in ("elpv-mono", "elpv-poly"):
        return read_elpv(spec.removeprefix("elpv-"))
    if not Path(spec).exists():
        raise InputError(f"{spec} does not exist; expected elpv-mono, elpv-poly or a folder in the MVTec layout")
    return read_mvtec(Path(spec))


def read_mvtec(folder: Path) -> Dataset:
    """Reads the layout `train/good`, `test/good`, `test/KIND`, `ground_truth/KIND/NAME_mask.png`.

    `train` and `ground_truth` may be absent. Where `ground_truth` exists, every defective image needs a mask: one that
    is missing by accident would silently count its flaw as normal.

    Raises:
        InputError: There is no `test` folder with images, or a mask is missing.
    """
    if not folder.is_dir():
        received = "is a file" if folder.exists() else "does not exist"
        raise InputError(
            f"{folder} {received}; expected a folder with test/good, test/KIND and, if there are masks, ground_truth/KIND: "
            "name the one that holds test/"
        )
    if not (folder / "test").is_dir():
        raise InputError(
            f"{folder}: no folder test/ in it; expected test/good, test/KIND and, if there are masks, ground_truth/KIND"
        )
    truth = folder / "ground_truth"
    items: list[Item] = []
    for kind in sorted(path for path in (folder / "test").iterdir() if path.is_dir()):
        for image in _images(kind):
            mask = truth / kind.name / f"{image.stem}_mask.png" if truth.is_dir() and kind.name != "good" else None
            if mask is not None and not mask.is_file():
                raise InputError(
                    f"{image}: no mask {mask}; expected one for each defective image, since ground_truth/ exists"
                )
            items.append(Item(image, kind.name, mask))
    if not items:
        raise InputError(f"{folder / 'test'}: no images; expected folders test/good and test/KIND")
    train = folder / "train" / "good"
    return Dataset(folder.resolve().name, _images(train) if train.is_dir() else (), tuple(items))


def read_elpv(cells: str) -> Dataset:
    """Solar cells in electroluminescence light from the package elpv-dataset (Deitsch et al. 2021).

    Functional cells (defect probability 0) are good, certainly defective ones (probability 1) defective; those in
    between are left out.

    Args:
        cells: "mono" or "poly", the kind of crystal.

    Raises:
        MissingExtraError: The package is not installed.
    """
    package = importlib.util.find_spec("elpv_dataset")
    if package is None or package.origin is None:
        raise MissingExtraError("elpv_dataset is not installed; install it: pip install 'flawline[demo]'")
    folder = Path(package.origin).parent / "data"
    good, defective = [], []
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as lines:
        for name, probability, crystal in csv.reader((" ".join(line.split()) for line in lines), delimiter=" "):
            if crystal != cells:
                continue
            if float(probability) == ELPV_GOOD:
                good.append(folder / name)
            elif float(probability) == ELPV_DEFECTIVE:
                defective.append(Item(folder / name, "defective"))
    return Dataset(f"elpv-{cells}", tuple(good), tuple(defective), terms=ELPV_LICENCE, shares_good=True)


def _images(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES))
