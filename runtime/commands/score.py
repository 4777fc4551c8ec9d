"""Scores images with a bundle: score, p-value, verdict and the regions above the threshold.

A score above the threshold is a reject. The p-value is the share of good calibration images that score at least as
high. --heatmaps writes each image with its anomaly map and boxes.

  flawline score part.flaw shot.png
  flawline score part.flaw shots/*.png --json --heatmaps overlays/
"""

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="folder of the bundle")
    parser.add_argument("images", metavar="IMAGE", type=Path, nargs="+", help="image file, or folder of images")
    parser.add_argument("--json", action="store_true", help="one JSON object per image and line")
    parser.add_argument("--heatmaps", metavar="DIR", type=Path, help="folder for overlays, NAME.png each")
    parser.add_argument("--threshold", metavar="T", type=float, help="instead of the bundle's own")
    parser.add_argument("--backend", metavar="NAME", default="auto", help="engine (default: %(default)s)")
    parser.add_argument("--threads", metavar="N", type=int, default=1, help="default: %(default)s")
    parser.add_argument(
        "--skip-bad", action="store_true", help="go on after an image that cannot be scored; exit 2 then"
    )


def run(options: argparse.Namespace) -> int:
    """Scores every image and prints a line for each."""
    import cv2
    import msgspec

    from flawline.runtime.detector import Detector
    from flawline.runtime.errors import InputError
    from flawline.runtime.images import list_images, read_image, require_mode, write_image
    from flawline.runtime.overlay import overlay

    images = [image for path in options.images for image in (list_images(path) if path.is_dir() else [path])]
    overlays = _overlay_paths(images, options.heatmaps) if options.heatmaps else {}
    if options.heatmaps:
        options.heatmaps.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(options.threads)
    failed = 0
    with Detector.open(options.bundle, backend=options.backend, threads=options.threads) as detector:
        if options.threshold is not None:
            detector.threshold = options.threshold
        for path in images:
            try:
                frame = read_image(path)
                require_mode(frame, detector.bundle.manifest.input.channels, path)
            except InputError as error:
                if not options.skip_bad:
                    raise
                failed += 1
                sys.stderr.write(f"flawline score: {error}\n")
                continue
            result = detector(frame)
            if options.json:
                line = msgspec.json.encode(
                    {
                        "image": str(path),
                        "score": result.score,
                        "threshold": result.threshold,
                        "p_value": result.p_value,
                        "verdict": result.verdict,
                        "regions": result.regions,
                    }
                ).decode()
            else:
                count = len(result.regions)
                where = f"  {count} region{'s' * (count != 1)}" if count else ""
                line = f"{result.verdict:6}  score {result.score:8.4f}  p {result.p_value:.4f}  {path}{where}"
            sys.stdout.write(line + "\n")
            if options.heatmaps:
                write_image(overlays[path], overlay(frame, result.map, result.regions, result.threshold))
    return 2 if failed else 0


def _overlay_paths(images: list[Path], folder: Path) -> dict[Path, Path]:
    """Names overlays after their images; of images of one name, the second and further get a number."""
    paths: dict[Path, Path] = {}
    for image in images:
        candidates = (
            folder / f"{image.stem}{suffix}.png" for suffix in ["", *(f"-{n}" for n in range(2, len(images) + 2))]
        )
        paths[image] = next(path for path in candidates if path not in paths.values())
    return paths
