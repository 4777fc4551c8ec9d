"""What `flawline stream` does with a bundle for an endless web."""

import argparse
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flawline.runtime.bundle import Bundle
    from flawline.runtime.cameras import Source
    from flawline.runtime.stream import DefectSink, PictureWriter, Summary
    from flawline.runtime.web.odometer import Odometer
    from flawline.runtime.web.recorder import Recorder

_PITCH_TOLERANCE = 0.02
_MAX_DEFECT_LINES = 4096


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
        default=_MAX_DEFECT_LINES,
        help="report a defect that goes on after so many lines (default: %(default)s)",
    )
    web.add_argument("--flat-field", metavar="FILE", type=Path, help="made by `flawline camera flat-field`")
    web.add_argument("--record", metavar="DIR", type=Path, help="keep the raw blocks around defects, to be replayed")
    web.add_argument("--record-all", action="store_true", help="keep all blocks")
    web.add_argument("--lines", metavar="MAX", type=count, help="end after so many lines")


def run(
    options: argparse.Namespace,
    bundle: "Bundle",
    source: "Source",
    sinks: "list[DefectSink]",
    pictures: "PictureWriter | None",
    progress: Callable[[int], object] | None,
    stack: contextlib.ExitStack,
) -> "Summary":
    """Streams a web.

    Args:
        options: Of the command line.
        bundle: For a web, in the precision that is wanted.
        source: An open source.
        sinks: Where events go.
        pictures: Writes thumbnails, if wanted.
        progress: Called with the number of lines that came.
        stack: Closes what is opened here.

    Returns:
        The account.

    Raises:
        FlawlineError: See `WebStream.run`.
        InputError: Options do not go together or with the bundle.
    """
    from flawline.runtime.commands.stream import stop_on_signal
    from flawline.runtime.errors import InputError
    from flawline.runtime.stream.web_pipeline import WebStream
    from flawline.runtime.web.flat_field import FlatFieldCorrector, load
    from flawline.runtime.web.inspector import WebInspector

    if options.frames is not None or options.frame_lines is not None or options.overlays is not None:
        raise InputError("--frames, --frame-lines and --overlays are for bundles of pictures; this one is for a web")
    line_mm, pixel_mm = _pitches(options, bundle)
    inspector = stack.enter_context(
        WebInspector(
            bundle,
            source.width,
            strip_lines=options.strip_lines,
            tile_px=options.tile,
            backend=options.backend,
            threads=options.threads,
        )
    )
    corrector = None
    if options.flat_field is not None:
        from flawline.runtime.cameras import line_shape

        corrector = FlatFieldCorrector(load(options.flat_field), line_shape(source))
    stream = WebStream(
        inspector=inspector,
        threshold=bundle.manifest.threshold.score if options.threshold is None else options.threshold,
        p_value=bundle.p_value,
        sinks=sinks,
        odometer=_odometer(options, line_mm),
        max_defect_lines=options.max_defect_lines,
        merge_px=_merge_px(options, line_mm, pixel_mm),
        min_area_px=_min_area_px(options, line_mm, pixel_mm),
        pixel_mm=pixel_mm,
        line_mm=line_mm,
        gate_mm=options.gate_mm,
        flat_field=corrector,
        recorder=_recorder(options, source, inspector.geometry.halo + inspector.geometry.strip_lines),
        policy=options.policy,
        ring_blocks=options.ring,
        stop=stack.enter_context(stop_on_signal()),
        max_lines=options.lines,
        pictures=pictures,
        progress=progress,
    )
    sys.stderr.write(
        f"flawline stream: {inspector.backend}, strips of {inspector.geometry.strip_lines} lines with "
        f"{inspector.geometry.halo} of context, {inspector.geometry.tiles(source.width)} tiles\n"
    )
    return stream.run(source)


def _pitches(options: argparse.Namespace, bundle: "Bundle") -> tuple[float | None, float | None]:
    """Millimetres per line and per pixel: those given, which must be those of the good web."""
    from flawline.runtime.errors import InputError

    web = bundle.manifest.web
    known = (None, None) if web is None else (web.line_mm, web.pixel_mm)
    pitches = []
    given_line = options.line_pitch_mm
    if given_line is None and options.mm_per_count is not None and options.counts_per_line is not None:
        given_line = options.mm_per_count * options.counts_per_line
    for name, given, fitted in (("line", given_line, known[0]), ("pixel", options.pixel_pitch_mm, known[1])):
        if given is not None and fitted is not None and abs(given / fitted - 1) > _PITCH_TOLERANCE:
            raise InputError(
                f"the {name} pitch is {given:g} mm, that of the good web {fitted:g} mm; expected the same: resolution is part "
                "of what was learnt, so fit again at this pitch"
            )
        pitches.append(fitted if given is None else given)
    line_mm, pixel_mm = pitches
    return line_mm, pixel_mm


def _odometer(options: argparse.Namespace, line_mm: float | None) -> "Odometer":
    from flawline.runtime.web.odometer import Odometer

    if options.mm_per_count is not None:
        return Odometer(mm_per_count=options.mm_per_count, counts_per_line=options.counts_per_line)
    return Odometer(mm_per_line=line_mm or 1.0, counts_per_line=options.counts_per_line)


def _merge_px(options: argparse.Namespace, line_mm: float | None, pixel_mm: float | None) -> tuple[int, int]:
    if options.merge_mm is None:
        return 0, 0
    line_mm, pixel_mm = _known("--merge-mm", line_mm, pixel_mm)
    return round(options.merge_mm / line_mm), round(options.merge_mm / pixel_mm)


def _min_area_px(options: argparse.Namespace, line_mm: float | None, pixel_mm: float | None) -> int:
    if options.min_area_mm2 is None:
        return 0
    line_mm, pixel_mm = _known("--min-area-mm2", line_mm, pixel_mm)
    return round(float(options.min_area_mm2) / (line_mm * pixel_mm))


def _known(option: str, line_mm: float | None, pixel_mm: float | None) -> tuple[float, float]:
    from flawline.runtime.errors import InputError

    if line_mm is None or pixel_mm is None:
        raise InputError(f"{option} needs the size of a pixel; expected --line-pitch-mm and --pixel-pitch-mm as well")
    return line_mm, pixel_mm


def _recorder(options: argparse.Namespace, source: "Source", waiting_lines: int) -> "Recorder | None":
    from flawline.runtime.errors import InputError
    from flawline.runtime.web.recorder import DEFAULT_BLOCKS, DEFAULT_MARGIN_LINES, Recorder

    if options.record is None:
        if options.record_all:
            raise InputError("--record-all without --record; expected --record DIR as well")
        return None
    # What was before a defect must still be there when the strips behind it are inspected.
    past = -(-(options.max_defect_lines + waiting_lines + 2 * DEFAULT_MARGIN_LINES) // source.block_lines)
    return Recorder(options.record, source, everything=options.record_all, blocks=max(DEFAULT_BLOCKS, past))
