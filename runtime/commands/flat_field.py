"""Makes a flat field of a line camera from dark and white reference lines.

Dark: the lens covered. White: an even white surface, out of focus or moving, that saturates no pixel.
At least 2,048 lines of each are recommended.

  flawline camera flat-field --dark pylon:24500001 --white white.png --out camera.flat
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flawline.runtime.web.flat_field import LineAverage

SILENCE_S = 10.0
"""A camera that sends nothing for so long ends the command."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument(
        "--dark", metavar="SPEC", required=True, help="source of dark lines, or an image or folder of images"
    )
    parser.add_argument("--white", metavar="SPEC", required=True, help="the same for white lines")
    parser.add_argument(
        "--lines", metavar="N", type=int, default=4096, help="lines of each at most (default: %(default)s)"
    )
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="flat field to write")


def run(options: argparse.Namespace) -> int:
    """Averages, makes, writes, and says what is weak about it."""
    from flawline.runtime.errors import InputError
    from flawline.runtime.web import flat_field

    if options.lines < 1:
        raise InputError(f"--lines {options.lines}; expected 1 or more")
    if options.out.exists():
        flat_field.load(options.out)  # nothing but a flat field is written over
    dark, white = average(options.dark, options.lines), average(options.white, options.lines)
    field = flat_field.make_flat_field(dark, white)
    flat_field.save(options.out, field)
    gains = field.gain / flat_field.GAIN_ONE
    sys.stdout.write(
        f"{options.out}: {len(field.dark)} px, {dark.lines} dark and {white.lines} white lines; "
        f"dark {field.dark.min()} to {field.dark.max()}, gain {gains.min():.3f} to {gains.max():.3f}\n"
    )
    fewest = min(dark.lines, white.lines)
    if fewest < flat_field.RECOMMENDED_LINES:
        sys.stderr.write(f"only {fewest} lines averaged; {flat_field.RECOMMENDED_LINES} or more are recommended\n")
    if len(field.faulty):
        shown = flat_field.shown_pixels(field.faulty)
        sys.stderr.write(f"dead or saturated, and replaced by a neighbour: {shown}\n")
    return 0


def average(word: str, most_lines: int) -> "LineAverage":
    """Averages the lines that a source or images give.

    Args:
        word: A source's spec, or the path of an image or a folder of images.
        most_lines: Lines after which it is enough.

    Returns:
        Their average. Lines that a camera lost are not in it.

    Raises:
        InputError: The source cannot be opened, gives no line, or falls silent.
    """
    import time
    from contextlib import closing
    from urllib.parse import quote

    import numpy as np

    from flawline.runtime.cameras import SCHEMES, Status, line_shape, open_source
    from flawline.runtime.errors import InputError
    from flawline.runtime.web.flat_field import LineAverage

    is_spec = word.partition(":")[0] in SCHEMES and ":" in word
    with closing(open_source(word if is_spec else f"replay:{quote(word)}")) as source:
        shape = line_shape(source)
        result = LineAverage(shape)
        buffer = np.zeros((source.block_lines, *shape), np.uint8)
        heard = time.monotonic()
        while result.lines < most_lines:
            info = source.read(buffer, 1.0)
            if info.status is Status.END:
                break
            if info.status is Status.OK:
                heard = time.monotonic()
                result.add(buffer[: min(info.lines, most_lines - result.lines)])
            elif time.monotonic() - heard > SILENCE_S:
                raise InputError(f"{word} gave no line for {SILENCE_S:.0f} s; expected {most_lines}")
    if not result.lines:
        raise InputError(f"{word} gave no line; expected reference lines")
    return result
