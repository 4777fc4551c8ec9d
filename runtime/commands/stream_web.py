"""What `flawline stream` does with a bundle for an endless web."""

import argparse
import contextlib
import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flawline.runtime.bundle import Bundle
    from flawline.runtime.cameras import Source
    from flawline.runtime.stream import DefectSink, PictureWriter, Summary
    from flawline.runtime.web.geometry import Geometry
    from flawline.runtime.web.recorder import Recorder


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
    from flawline.runtime.cameras import require_encoder
    from flawline.runtime.commands import web_options
    from flawline.runtime.commands.stream import stop_on_signal
    from flawline.runtime.errors import InputError
    from flawline.runtime.stream.web_pipeline import WebStream
    from flawline.runtime.web.inspector import WebInspector

    if options.threshold is not None and not math.isfinite(options.threshold):
        raise InputError(f"threshold is {options.threshold}; expected a finite score")
    line_mm, pixel_mm = web_options.pitches(options, bundle.manifest.web)
    odometer = web_options.odometer(options, line_mm)
    if odometer.has_encoder:
        require_encoder(source)
    largest = options.max_defect_lines or web_options.MAX_DEFECT_LINES, source.width
    merge_px = web_options.merge_px(options, line_mm, pixel_mm, largest)
    min_area_px = web_options.min_area_px(options, line_mm, pixel_mm, largest)
    inspector = stack.enter_context(
        WebInspector(
            bundle,
            source.width,
            strip_lines=options.strip_lines,
            tile_px=options.tile,
            backend=options.backend,
            threads=options.threads,
            fallback=options.fallback,
        )
    )
    corrector = web_options.corrector(options, bundle.manifest.web, source)
    stream = WebStream(
        inspector=inspector,
        threshold=bundle.manifest.threshold.score if options.threshold is None else options.threshold,
        p_value=bundle.p_value,
        sinks=sinks,
        odometer=odometer,
        max_defect_lines=largest[0],
        merge_px=merge_px,
        min_area_px=min_area_px,
        max_strip_defects=options.max_strip_defects or web_options.MAX_STRIP_DEFECTS,
        pixel_mm=pixel_mm,
        line_mm=line_mm,
        gate_mm=options.gate_mm,
        flat_field=corrector,
        policy=options.policy,
        ring_blocks=options.ring,
        stop=stack.enter_context(stop_on_signal()),
        max_lines=options.lines,
        pictures=pictures,
        progress=progress,
    )
    stream.check(source)
    stream.recorder = _recorder(options, source, largest[0], inspector.geometry)
    if stream.recorder is not None:
        stack.callback(stream.recorder.close)
    sys.stderr.write(
        f"flawline stream: {inspector.backend}, strips of {inspector.geometry.strip_lines} lines with "
        f"{inspector.geometry.halo} of context, {inspector.geometry.tiles(source.width)} tiles\n"
    )
    return stream.run(source)


def _recorder(
    options: argparse.Namespace, source: "Source", defect_lines: int, geometry: "Geometry"
) -> "Recorder | None":
    from flawline.runtime.errors import InputError
    from flawline.runtime.web.recorder import Recorder, room_for

    if options.record is None:
        if options.record_all:
            raise InputError("--record-all without --record; expected --record DIR as well")
        return None
    room = room_for(geometry, defect_lines, source.block_lines)
    return Recorder(options.record, source, everything=options.record_all, **room._asdict())
