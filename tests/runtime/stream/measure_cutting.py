"""Measures how many lines per second the part finder takes, block by block, without a detector.

python -m tests.runtime.stream.measure_cutting [--width 4096] [--channels 1] [--block 256] [--seconds 10]
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from flawline.runtime.cameras import BlockInfo, Status
from flawline.runtime.images import use_threads
from flawline.runtime.stream import Block, Frame, PartAssembler, PartOptions

FRAME_LINES, PITCH_LINES = 600, 800


def main() -> None:
    """Prints lines per second and the times of blocks; a part of 500 lines comes every 800."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("width", 4096), ("channels", 1), ("block", 256), ("seconds", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    use_threads(1)
    shape = (options.width,) if options.channels == 1 else (options.width, options.channels)
    web = np.random.default_rng(0).normal(60, 4, (4 * PITCH_LINES, *shape)).astype(np.uint8)
    for begin in range(200, len(web), PITCH_LINES):
        web[begin : begin + 500, options.width // 8 : options.width * 7 // 8] += 80
    blocks = [web[line : line + options.block] for line in range(0, len(web) - options.block + 1, options.block)]
    blocks = [block for block in blocks if len(block) == options.block]
    assembler = PartAssembler(FRAME_LINES, shape, PartOptions())
    times, frames, line = [], 0, 0
    end = time.monotonic() + options.seconds
    while time.monotonic() < end:
        for pixels in blocks:
            start = time.perf_counter()
            for piece in assembler.add(Block(pixels, BlockInfo(Status.OK, line, len(pixels)))):
                frames += isinstance(piece, Frame)
            times.append(time.perf_counter() - start)
            line += len(pixels)
    p50, p99 = np.percentile(times, (50, 99)) * 1e3
    load = Path("/proc/loadavg").read_text().split()[0]
    sys.stdout.write(
        f"{line / sum(times):.0f} lines/s of {options.width} px x {options.channels}, {frames} frames; a block of {options.block} lines: "
        f"p50 {p50:.2f} ms, p99 {p99:.2f} ms, max {max(times) * 1e3:.2f} ms; load {load}\n"
    )


if __name__ == "__main__":
    main()
