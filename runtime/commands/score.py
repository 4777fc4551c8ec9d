"""Scores images with a bundle: score, p-value, verdict and the regions above the threshold.

A score above the threshold is a reject. The p-value is the share of good calibration images that score at least as
high. --heatmaps writes each image with its anomaly map and boxes. A classifier also says the class of each image, and how
probable that is.

  flawline score part.flaw shot.png
  flawline score part.flaw shots/*.png --json --heatmaps overlays/
"""

import argparse
import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flawline.runtime.commands.options import add_engine, add_fallback, add_map

if TYPE_CHECKING:
    from flawline.runtime.bundle.manifest import Input
    from flawline.runtime.detector import Detector, Result
    from flawline.runtime.images import Image


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="folder of the bundle")
    parser.add_argument("images", metavar="IMAGE", type=Path, nargs="+", help="image file, or folder of images")
    parser.add_argument("--json", action="store_true", help="one JSON object per image and line")
    parser.add_argument("--heatmaps", metavar="DIR", type=Path, help="folder for overlays, NAME.png each")
    parser.add_argument("--threshold", metavar="T", type=float, help="instead of the bundle's own")
    add_engine(parser)
    add_map(parser)
    add_fallback(parser)
    parser.add_argument(
        "--any-size", action="store_true", help="also score images of another size than the good images"
    )
    parser.add_argument(
        "--skip-bad", action="store_true", help="go on after an image that cannot be scored; exit 2 then"
    )


def run(options: argparse.Namespace) -> int:
    """Scores every image and prints a line for each."""
    import msgspec

    from flawline.runtime.detector import Detector
    from flawline.runtime.errors import FlawlineError
    from flawline.runtime.files import make_folder
    from flawline.runtime.images import list_images, use_threads, write_image
    from flawline.runtime.overlay import overlay
    from flawline.runtime.scored_image import describe

    use_threads(options.threads)
    failed = 0
    with Detector.open(
        options.bundle,
        backend=options.backend,
        precision=options.precision,
        threads=options.threads,
        fallback=options.fallback,
        map=options.map,
    ) as detector:
        images = [image for path in options.images for image in (list_images(path) if path.is_dir() else [path])]
        overlays = _overlay_paths(images, options.heatmaps) if options.heatmaps else {}
        if options.heatmaps:
            make_folder(options.heatmaps)
        if options.threshold is not None:
            detector.threshold = options.threshold
        for path in images:
            try:
                frame, result = _inspect(path, detector, options.any_size)
            except FlawlineError as error:
                if not options.skip_bad:
                    raise
                failed += 1
                sys.stderr.write(f"flawline score: {error}\n")
                continue
            scored = describe(path, result, detector.bundle.manifest)
            sys.stdout.write((msgspec.json.encode(scored).decode() if options.json else scored.text()) + "\n")
            if options.heatmaps:
                write_image(overlays[path], overlay(frame, result.map, result.regions, result.threshold))
        if detector.fallback_reason is not None:
            sys.stderr.write(f"flawline score: {detector.backend} has taken over: {detector.fallback_reason}\n")
    return 2 if failed else 0


def _inspect(path: Path, detector: "Detector", any_size: bool) -> "tuple[Image, Result]":
    from flawline.runtime.errors import FlawlineError
    from flawline.runtime.images import SMALLEST_SIDE_PX, read_image, require_mode, require_size

    frame = read_image(path)
    frame_input = detector.bundle.manifest.input
    require_mode(frame, frame_input.channels, path)
    require_size(frame, SMALLEST_SIDE_PX, path)
    if not any_size:
        _require_source_size(path, frame.shape[:2], frame_input)
    try:
        return frame, detector(frame)
    except FlawlineError as error:
        raise FlawlineError(f"{path}: {error}") from error


def _require_source_size(path: Path, size: tuple[int, ...], frame_input: "Input") -> None:
    """Refuses an image of another size than the good images: the network would see it at another scale."""
    from flawline.runtime.errors import InputError

    height, width = frame_input.source_height, frame_input.source_width
    if height is not None and width is not None and size != (height, width):
        raise InputError(
            f"{path} is {size[1]} x {size[0]} px; expected {width} x {height} px like the good images "
            "(--any-size goes on)"
        )


def _overlay_paths(images: list[Path], folder: Path) -> dict[Path, Path]:
    """Names overlays after their images; of images of one name, the second and further get a number."""
    paths: dict[Path, Path] = {}
    taken: set[str] = set()
    for image in dict.fromkeys(images):
        names = itertools.chain([image.stem], (f"{image.stem}-{number}" for number in itertools.count(2)))
        name = next(name for name in names if name not in taken)
        taken.add(name)
        paths[image] = folder / f"{name}.png"
    return paths
