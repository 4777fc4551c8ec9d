"""What is measured: detectors from a bundle, or fitted for it, and real frames."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flawline.benchmarks.costs.stages import Frame
from flawline.benchmarks.costs.ways import Way, engines_of, ways_of
from flawline.benchmarks.datasets import Item, open_dataset
from flawline.benchmarks.fits import fit_each
from flawline.export.fit import FitOptions
from flawline.export.fitting import Say, evenly
from flawline.runtime.bundle import Bundle, MapKind, read
from flawline.runtime.errors import InputError
from flawline.runtime.images import list_images, read_image
from flawline.runtime.precisions import Precision

CALIBRATION_IMAGES = 60
_MOST_FRAMES = 64
_MOST_FIT_IMAGES = 120


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Attributes:
        ways: Detectors, the lowest dimension first.
        bundle: Of the first.
        image: An image file, for commands that take one.
        frames: Real frames.
        items: Labelled images that no detector was fitted on; empty if there are none.
        data: Name of their data set; None likewise.
    """

    ways: list[Way]
    bundle: Bundle
    image: Path
    frames: list[Frame]
    items: tuple[Item, ...] = ()
    data: str | None = None


def from_bundle(
    path: Path,
    images: Path,
    *,
    precisions: Sequence[Precision] | None,
    engines: Sequence[str] | None,
    kind: MapKind | None = None,
) -> Subject:
    """Detectors that a bundle holds.

    Args:
        path: Folder of the bundle.
        images: Folder of frames.
        precisions: Which; None for all that it holds.
        engines: Which; None for all that are installed.
        kind: Of the anomaly map; None for the bundle's own.

    Raises:
        BundleError: The bundle is damaged.
        InputError: It holds no such precision, does not offer that map, no engine asked for computes in one, or there are no images.
    """
    paths = list_images(images)
    bundle = read(path).with_map(kind)
    ways = [
        way
        for precision in precisions or bundle.precisions
        for way in ways_of(path, precision, engines_of(precision, engines), kind)
    ]
    return Subject(ways, bundle, paths[0], _frames(paths))


def fitted(
    folder: Path,
    options: FitOptions,
    *,
    images: Path | None,
    test: str | None,
    dimensions: Sequence[int],
    precisions: Sequence[Precision],
    engines: Sequence[str] | None,
    say: Say,
) -> Subject:
    """Detectors that are fitted here, one bundle per dimension and precision.

    Args:
        folder: For the bundles.
        options: How to fit.
        images: Folder of frames; None for those of `test`.
        test: Labelled images, to fit on one split of and to measure on what it leaves; None to fit on the frames.
        dimensions: Projected dimensions d.
        precisions: Of the network.
        engines: Which; None for all that are installed.
        say: Takes each line that tells what is being done.

    Raises:
        InputError: Images or options are not what they must be.
        ResourceError: Memory or disk would not suffice.
        ParityError: A detector does not score like its reference.
    """
    names = {precision: engines_of(precision, engines) for precision in precisions}
    items: tuple[Item, ...] = ()
    data = None
    if test is None:
        if images is None:
            raise InputError("no frames; expected a folder of them, --images DIR, or labelled ones, --test SPEC")
        paths = list_images(images)
        good = paths[:_MOST_FIT_IMAGES]
    else:
        dataset, held_out = open_dataset(test), options.calibration_images or CALIBRATION_IMAGES
        split = dataset.split(options.fit_images, held_out, options.seed)
        data, good, items = dataset.name, [*split.fit, *split.calibration], split.test
        paths = list_images(images) if images is not None else [item.path for item in items]
        options = replace(options, calibration_images=held_out, fit_images=None)
    ways: list[Way] = []
    # The highest first: where memory does not suffice for it, that is told at once.
    for dimension in sorted(dimensions, reverse=True):
        bundles = fit_each(good, folder, replace(options, dimension=dimension), precisions, say)
        ways = [way for one, path in bundles.items() for way in ways_of(path, one, names[one])] + ways
    return Subject(ways, read(ways[0].bundle), paths[0], _frames(paths), items, data)


def _frames(paths: Sequence[Path]) -> list[Frame]:
    return [read_image(path) for path in evenly(paths, _MOST_FRAMES)]
