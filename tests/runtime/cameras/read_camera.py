"""Reads a source in a process of its own, and tells what each read gave, one JSON document per line.

  python read_camera.py SPEC

A command comes line by line on standard input: `read N` for N lines, received or lost; `wait SECONDS` without reading;
`counters`; `close`. Each is answered by a list: of reads (status, first line, lines, camera time, arrival time, reason,
detail, number and time in the first line, whether the other lines and all pixels are what the fake camera makes of that
number), or of one item.
"""

import contextlib
import json
import sys
import time

import numpy as np

from flawline.runtime.cameras import Source, Status, line_shape, open_source
from flawline.runtime.errors import FlawlineError

STAMP_PX = 16
PATIENCE_S = 30.0


def read(source: Source, lines: int, buffer: np.ndarray, textures: np.ndarray) -> list[list[object]]:
    reads: list[list[object]] = []
    end = time.monotonic() + PATIENCE_S
    left = lines
    while left > 0 and time.monotonic() < end:
        info = source.read(buffer, 0.2)
        if info.status is Status.TIMEOUT:
            continue
        left -= info.lines
        made, made_ns, is_right = None, None, None
        if info.status is Status.OK:
            pixels = buffer[: info.lines]
            numbers, times = np.ascontiguousarray(pixels[:, :STAMP_PX]).view("<u8").T
            made, made_ns = int(numbers[0]), int(times[0])
            expected = textures[numbers % len(textures), STAMP_PX : source.width]
            follow_each_other = np.all(np.diff(numbers.astype(np.int64)) == 1)
            is_right = bool(follow_each_other and np.array_equal(pixels[:, STAMP_PX:], expected))
        reads.append([info.status.value, *info[1:7], made, made_ns, is_right])
    return reads


def main() -> int:
    textures = np.random.default_rng(0).integers(0, 256, (512, 8192), np.uint8)
    try:
        source = open_source(sys.argv[1])
    except FlawlineError as error:
        sys.stdout.write(json.dumps(["error", str(error)]) + "\n")
        return 2
    with contextlib.closing(source):
        buffer = np.empty((source.block_lines, *line_shape(source)), np.uint8)
        sys.stdout.write(json.dumps([source.block_lines, source.width, source.channels]) + "\n")
        sys.stdout.flush()
        for command in sys.stdin:
            name, *values = command.split()
            if name == "read":
                answer: list[object] = list(read(source, int(values[0]), buffer, textures))
            elif name == "wait":
                answer = [time.sleep(float(values[0]))]
            elif name == "counters":
                answer = [dict(source.counters)]
            else:
                break
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
    sys.stdout.write(json.dumps(["closed"]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
