"""The options of `flawline stream` for an endless web, and what they mean in lines, pixels and millimetres."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from flawline.runtime.errors import InputError

if TYPE_CHECKING:
    from flawline.runtime.bundle import Web
    from flawline.runtime.cameras import Source
    from flawline.runtime.web.flat_field import FlatFieldCorrector
    from flawline.runtime.web.odometer import Odometer

MAX_DEFECT_LINES = 4096
MAX_STRIP_DEFECTS = 256

PART_OPTIONS = ("part_contrast", "part_share", "part_margin", "part_background")
"""Of frames that a part finder cuts."""

_PITCH_TOLERANCE = 0.02
_FRAME_ONLY = ("frames", "frame_lines", "overlays", "cut", *PART_OPTIONS)
_WEB_ONLY = (
    "strip_lines",
    "tile",
    "counts_per_line",
    "fastest_counts_per_line",
    "mm_per_count",
    "gate_mm",
    "merge_mm",
    "min_area_mm2",
    "max_defect_lines",
    "max_strip_defects",
    "flat_field",
    "record",
    "record_all",
    "lines",
)


def add_arguments(parser: argparse.ArgumentParser, count: Callable[[str], int], length: Callable[[str], float]) -> None:
    """Declares the options that go with a bundle for a web.

    Args:
        parser: Of the command.
        count: Parses a positive number of things.
        length: Parses a positive length.
    """
    web = parser.add_argument_group("webs", "for bundles that `flawline fit --web` made")
    web.add_argument(
        "--strip-lines", metavar="N", type=count, help="lines per strip: fewer are told sooner, more cost less"
    )
    web.add_argument("--tile", metavar="PX", type=count, help="width of a tile (default: as fitted)")
    web.add_argument("--counts-per-line", metavar="N", type=count, help="encoder counts per line of a triggered camera")
    web.add_argument(
        "--fastest-counts-per-line",
        metavar="N",
        type=count,
        help="encoder counts from line to line of a free running camera that are still believed (default: 1024)",
    )
    web.add_argument("--mm-per-count", metavar="MM", type=length, help="travel of the web per encoder count")
    web.add_argument(
        "--gate-mm", metavar="MM", type=length, help="distance of the reject gate: defects told too late are counted"
    )
    web.add_argument("--merge-mm", metavar="MM", type=length, help="parts of one defect may lie so far apart")
    web.add_argument("--min-area-mm2", metavar="MM2", type=length, help="smallest defect that is reported")
    web.add_argument(
        "--max-defect-lines",
        metavar="N",
        type=count,
        help=f"report a defect that goes on after so many lines (default: {MAX_DEFECT_LINES})",
    )
    web.add_argument(
        "--max-strip-defects",
        metavar="N",
        type=count,
        help=f"tell the N strongest of a strip, and count the others (default: {MAX_STRIP_DEFECTS})",
    )
    web.add_argument("--flat-field", metavar="FILE", type=Path, help="made by `flawline camera flat-field`")
    web.add_argument("--record", metavar="DIR", type=Path, help="keep the raw blocks around defects, to be replayed")
    web.add_argument("--record-all", action="store_true", help="keep all blocks")
    web.add_argument("--lines", metavar="MAX", type=count, help="end after so many lines")


def refuse(options: argparse.Namespace, *, is_web: bool) -> None:
    """Refuses options that go with the other kind of bundle.

    Args:
        options: Of the command.
        is_web: Whether the bundle is one for a web.

    Raises:
        InputError: One is given.
    """
    names = _FRAME_ONLY if is_web else _WEB_ONLY
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) not in (None, False)]
    if not given:
        return
    if is_web:
        raise InputError(
            f"{', '.join(given)}: for bundles for pictures; this one is for a web, inspected without frames"
        )
    raise InputError(f"{', '.join(given)}: for bundles for a web, that `fit --web` made; this one is for pictures")


def pitches(options: argparse.Namespace, web: "Web | None") -> tuple[float | None, float | None]:
    """Millimetres per line and per pixel: those given, or those of the good web.

    Raises:
        InputError: They are not those of the good web, or two options contradict each other.
    """
    line_mm, pixel_mm = options.line_pitch_mm, options.pixel_pitch_mm
    if options.mm_per_count is not None and options.counts_per_line is not None:
        travel_mm = options.mm_per_count * options.counts_per_line
        if line_mm is not None and not _agree(line_mm, travel_mm):
            raise InputError(
                f"--line-pitch-mm is {line_mm:g}, --mm-per-count times --counts-per-line {travel_mm:g}; expected the same"
            )
        line_mm = travel_mm
    known = (None, None) if web is None else (web.line_mm, web.pixel_mm)
    for name, given, fitted in (("line", line_mm, known[0]), ("pixel", pixel_mm, known[1])):
        if given is not None and fitted is not None and not _agree(given, fitted):
            raise InputError(
                f"the {name} pitch is {given:g} mm, that of the good web {fitted:g} mm; expected the same: resolution is part "
                "of what was learnt, so fit again at this pitch"
            )
    return known[0] if line_mm is None else line_mm, known[1] if pixel_mm is None else pixel_mm


def corrector(options: argparse.Namespace, web: "Web | None", source: "Source") -> "FlatFieldCorrector | None":
    """What takes the flat field out of every line; None for nothing.

    It says so if none was taken out of the good web. Another one than then is right: references are taken anew.

    Raises:
        InputError: One was taken out of the good web, and none is given; or it is no flat field, or of other lines.
    """
    from flawline.runtime.cameras import line_shape
    from flawline.runtime.web.flat_field import FlatFieldCorrector, load

    is_fitted = web is not None and isinstance(web.flat_field_sha256, str)
    if options.flat_field is None:
        if is_fitted:
            raise InputError(
                "the bundle was fitted with a flat field; expected --flat-field FILE as well: the same, or a newer one of this "
                "camera"
            )
        return None
    made = FlatFieldCorrector(load(options.flat_field), line_shape(source))
    if not is_fitted:
        sys.stderr.write(
            "flawline stream: the bundle was fitted without a flat field; --flat-field is right only if the good web came from "
            "a camera that does it itself\n"
        )
    return made


def odometer(options: argparse.Namespace, line_mm: float | None) -> "Odometer":
    """Where lines lie along the web.

    Raises:
        InputError: Options do not go together.
    """
    from flawline.runtime.web.odometer import FASTEST_COUNTS_PER_LINE, Odometer

    fastest = options.fastest_counts_per_line
    if fastest is not None and (options.mm_per_count is None or options.counts_per_line is not None):
        raise InputError(
            "--fastest-counts-per-line is for an encoder beside a free running camera; expected --mm-per-count and no "
            "--counts-per-line with it"
        )
    if options.mm_per_count is not None:
        return Odometer(
            mm_per_count=options.mm_per_count,
            counts_per_line=options.counts_per_line,
            fastest_counts_per_line=fastest or FASTEST_COUNTS_PER_LINE,
        )
    if options.gate_mm is not None and line_mm is None:
        raise InputError(
            "--gate-mm needs the travel of the web; expected --line-pitch-mm, or --mm-per-count for an encoder, as well"
        )
    return Odometer(mm_per_line=line_mm or 1.0, counts_per_line=options.counts_per_line)


def merge_px(
    options: argparse.Namespace, line_mm: float | None, pixel_mm: float | None, size: tuple[int, int]
) -> tuple[int, int]:
    """Lines and pixels that may lie between parts of one defect.

    Args:
        options: Of the command.
        line_mm: Travel per line.
        pixel_mm: Distance of pixels.
        size: Lines and pixels of the largest region.

    Raises:
        InputError: It cannot be told, or no region is so large.
    """
    if options.merge_mm is None:
        return 0, 0
    line_mm, pixel_mm = _known("--merge-mm", line_mm, pixel_mm)
    lines, pixels = options.merge_mm / line_mm, options.merge_mm / pixel_mm
    if lines > size[0] or pixels > size[1]:
        raise InputError(
            f"--merge-mm is {lines:.4g} lines by {pixels:.4g} px; expected at most {size[0]} by {size[1]}, the largest defect"
        )
    return round(lines), round(pixels)


def min_area_px(
    options: argparse.Namespace, line_mm: float | None, pixel_mm: float | None, size: tuple[int, int]
) -> int:
    """Pixels of the smallest defect; arguments and errors as for `merge_px`."""
    if options.min_area_mm2 is None:
        return 0
    line_mm, pixel_mm = _known("--min-area-mm2", line_mm, pixel_mm)
    pixels = float(options.min_area_mm2) / (line_mm * pixel_mm)
    if pixels > size[0] * size[1]:
        raise InputError(
            f"--min-area-mm2 is {pixels:.4g} px; expected at most {size[0]} lines of {size[1]}, the largest defect"
        )
    return round(pixels)


def _agree(given: float, expected: float) -> bool:
    return abs(given / expected - 1) <= _PITCH_TOLERANCE


def _known(option: str, line_mm: float | None, pixel_mm: float | None) -> tuple[float, float]:
    if line_mm is None or pixel_mm is None:
        raise InputError(f"{option} needs the size of a pixel; expected --line-pitch-mm and --pixel-pitch-mm as well")
    return line_mm, pixel_mm
