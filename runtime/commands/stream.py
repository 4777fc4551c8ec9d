"""Streams a web through a detector: every defect as a line on standard output, the account at the end.

The source is named KIND:ADDRESS?PARAMETER=VALUE&...:

  replay:DIR?line_rate=20000&block=64&loop=2
      the images of DIR, or one image, joined along the web: lines per second (0: as fast as possible),
      lines per block, and how often (a number or `forever`)

Ctrl-C or SIGTERM ends the stream with its account.

  flawline stream cell.flaw --source 'replay:cells?line_rate=5000'
  flawline stream cell.flaw --source replay:cells --json --thumbnails defects --out today.jsonl
  flawline stream fabric.flaw --source 'aravis:192.168.1.20?block=256' --record defects --gate-mm 1200
"""

import argparse
import contextlib
import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, TypeVar

from flawline.runtime.commands import stream_web, web_options
from flawline.runtime.commands.options import add_engine, add_fallback, add_map

if TYPE_CHECKING:
    from flawline.runtime.bundle import Bundle, Manifest
    from flawline.runtime.stream import Cut, DefectSink, PictureWriter, Pitch, Summary

Number = TypeVar("Number", int, float)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    count, length = _positive(int), _positive(float)
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="folder of the bundle")
    parser.add_argument("--source", metavar="SPEC", required=True, help="where the lines come from")
    parser.add_argument(
        "--frame-lines", metavar="N", type=count, help="height of a frame (default: as the good images)"
    )
    _add_cutting(parser)
    parser.add_argument("--threshold", metavar="T", type=float, help="instead of the bundle's own")
    # The policies' names are repeated here, not imported: `--help` loads no array library.
    parser.add_argument(
        "--policy",
        choices=("block", "drop-oldest", "drop-newest"),
        default="block",
        help="what gives way when the detector is slower than the line (default: %(default)s)",
    )
    parser.add_argument(
        "--ring", metavar="N", type=count, default=64, help="blocks that may wait (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="JSON lines on standard output")
    parser.add_argument("--out", metavar="FILE", type=Path, help="append JSON lines to this file as well")
    parser.add_argument("--thumbnails", metavar="DIR", type=Path, help="folder for pictures of the defects")
    parser.add_argument(
        "--overlays", metavar="DIR", type=Path, help="folder for rejected frames with their anomaly map"
    )
    parser.add_argument("--line-pitch-mm", metavar="MM", type=length, help="travel of the web per line")
    parser.add_argument("--pixel-pitch-mm", metavar="MM", type=length, help="distance of neighbouring pixels")
    parser.add_argument("--frames", metavar="MAX", type=count, help="end after so many frames")
    add_engine(parser)
    add_map(parser)
    add_fallback(parser)
    web_options.add_arguments(parser, count, length)


def _add_cutting(parser: argparse.ArgumentParser) -> None:
    cutting = parser.add_argument_group("frames", "for bundles for pictures: where a frame begins")
    cutting.add_argument(
        "--cut",
        choices=("grid", "trigger", "part"),
        help="at multiples of its height (default), at every block of a triggered camera, or where a part begins",
    )
    cutting.add_argument(
        "--part-contrast",
        metavar="GREY",
        type=int,
        help="a pixel of a part differs from the empty conveyor by more (24)",
    )
    cutting.add_argument(
        "--part-share", metavar="S", type=float, help="a line of a part has at least this share of such pixels (0.02)"
    )
    cutting.add_argument("--part-margin", metavar="N", type=int, help="lines of a frame before its part (16)")
    cutting.add_argument(
        "--part-background",
        metavar="IMAGE",
        type=Path,
        help="the empty conveyor (default: learnt from the first lines)",
    )


def run(options: argparse.Namespace) -> int:
    """Streams. Returns 1 if an event could not be delivered, else 0."""
    from flawline.runtime.bundle import read
    from flawline.runtime.cameras import open_source
    from flawline.runtime.images import use_threads
    from flawline.runtime.stream import PictureWriter

    use_threads(options.threads)
    bundle = read(options.bundle).select(options.precision).with_map(options.map)
    web_options.refuse(options, is_web=bundle.manifest.web is not None)
    with contextlib.ExitStack() as stack:
        pictures = None
        if options.thumbnails or options.overlays:
            pictures = PictureWriter(options.thumbnails, options.overlays)
        if bundle.manifest.web is None:
            summary = _stream_frames(options, bundle, pictures, stack)
        else:
            source = stack.enter_context(contextlib.closing(open_source(options.source)))
            summary = stream_web.run(
                options, bundle, source, _sinks(options, stack), pictures, _progress(options, stack), stack
            )
    for trouble in summary.troubles:
        sys.stderr.write(f"flawline stream: {trouble}\n")
    return 1 if summary.events_failed else 0


def _stream_frames(
    options: argparse.Namespace,
    bundle: "Bundle",
    pictures: "PictureWriter | None",
    stack: contextlib.ExitStack,
) -> "Summary":
    from flawline.runtime.cameras import open_source
    from flawline.runtime.detector import Detector
    from flawline.runtime.stream import run as run_stream

    pitch, cut = _pitch(options), _cut(options)
    detector = stack.enter_context(
        Detector(bundle, backend=options.backend, threads=options.threads, fallback=options.fallback)
    )
    if options.threshold is not None:
        detector.threshold = options.threshold
    source = stack.enter_context(contextlib.closing(open_source(options.source)))
    by_default = source.block_lines if cut == "trigger" else default_frame_lines(bundle.manifest, source.width)
    summary = run_stream(
        source,
        detector,
        _sinks(options, stack),
        frame_lines=options.frame_lines or by_default,
        cut=cut,
        policy=options.policy,
        ring_blocks=options.ring,
        stop=stack.enter_context(stop_on_signal()),
        max_frames=options.frames,
        pitch=pitch,
        pictures=pictures,
        progress=_progress(options, stack),
    )
    if detector.fallback_reason is not None:
        sys.stderr.write(f"flawline stream: {detector.backend} has taken over: {detector.fallback_reason}\n")
    return summary


def default_frame_lines(manifest: "Manifest", width: int) -> int:
    """Height of a frame that has the proportions of the good images.

    Args:
        manifest: Of the bundle; where the good images differ in size, the network's input stands for them.
        width: Pixels of a line.

    Returns:
        Lines.
    """
    network_input = manifest.input
    height = network_input.source_height or network_input.height
    return max(1, round(width * height / (network_input.source_width or network_input.width)))


@contextlib.contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; the second signal acts as if nobody listened."""
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _positive(convert: Callable[[str], Number]) -> Callable[[str], Number]:
    def parse(text: str) -> Number:
        value = convert(text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"{text} received; expected a number above 0")
        return value

    parse.__name__ = "number"  # argparse names it in its message for what is no number at all
    return parse


def _pitch(options: argparse.Namespace) -> "Pitch | None":
    from flawline.runtime.errors import InputError
    from flawline.runtime.stream import Pitch

    line_mm, pixel_mm = options.line_pitch_mm, options.pixel_pitch_mm
    if (line_mm is None) != (pixel_mm is None):
        raise InputError(
            "one of --line-pitch-mm and --pixel-pitch-mm is given; expected both, or neither for pixels only"
        )
    return None if line_mm is None else Pitch(line_mm, pixel_mm)


def _cut(options: argparse.Namespace) -> "Cut":
    import numpy as np

    from flawline.runtime.errors import InputError
    from flawline.runtime.images import read_image
    from flawline.runtime.stream import PartOptions

    given = {name: value for name in web_options.PART_OPTIONS if (value := getattr(options, name)) is not None}
    if options.cut != "part":
        if given:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise InputError(f"{names}: for parts that are looked for; expected --cut part as well")
        return "trigger" if options.cut == "trigger" else "grid"
    fields = {"part_contrast": "contrast", "part_share": "share", "part_margin": "margin_lines"}
    background = None
    if options.part_background is not None:
        background = np.median(read_image(options.part_background), axis=0).astype(np.uint8)
    return PartOptions(**{field: given[name] for name, field in fields.items() if name in given}, background=background)


def _is_watched(options: argparse.Namespace) -> bool:
    """Whether someone looks at a progress line, and no JSON would run into it."""
    return sys.stderr.isatty() and not (options.json and sys.stdout.isatty())


def _sinks(options: argparse.Namespace, stack: contextlib.ExitStack) -> "list[DefectSink]":
    from flawline.runtime.files import write_error
    from flawline.runtime.stream import JsonLinesSink, TextSink

    sinks: list[DefectSink] = [JsonLinesSink(sys.stdout.buffer) if options.json else TextSink(_writer(options))]
    if options.out is not None:
        try:
            # Unbuffered: a line that a full disk refuses must not be written twice when there is room again.
            sinks.append(JsonLinesSink(stack.enter_context(options.out.open("ab", buffering=0))))
        except OSError as error:
            raise write_error(error, options.out) from error
    return sinks


def _writer(options: argparse.Namespace) -> Callable[[str], None]:
    if _is_watched(options):
        import tqdm

        return partial(tqdm.tqdm.write, file=sys.stdout)

    def write(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    return write


def _progress(options: argparse.Namespace, stack: contextlib.ExitStack) -> Callable[[int], object] | None:
    if not _is_watched(options):
        return None
    import tqdm

    bar = stack.enter_context(tqdm.tqdm(desc="stream", unit=" lines", unit_scale=True, leave=False))
    return partial(bar.update)
