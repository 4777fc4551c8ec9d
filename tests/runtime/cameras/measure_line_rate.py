"""Highest line rate at which nothing of a GigE Vision stream is lost: acquisition, ring and flat field, and nobody behind them.

The camera is Aravis' fake one, over the loopback of a network namespace, on the same cores as what is measured: a real
camera leaves them alone, and it leaves frames out, unsent and uncounted, when it is late. So the rate is the one that
arrived, not the one that was asked for, which rises until lines are lost or no more arrive.

  python -m tests.runtime.cameras.measure_line_rate --width 4096 --block 256 --seconds 60
"""

import argparse
import contextlib
import json
import os
import sys
import threading
import time
from typing import Any

import numpy as np

from flawline.runtime.cameras import line_shape, open_source
from flawline.runtime.stream.acquisition import Acquisition
from flawline.runtime.stream.ring import Block, Ring
from flawline.runtime.web.flat_field import GAIN_ONE, FlatField, FlatFieldCorrector
from tests.runtime.cameras.wire import Wire, wire

WARM_UP_S = 1.0
STEP = 1.25
GAIN = 1.03
"""A step that brings less than this is the camera's last."""


def corrector(shape: tuple[int, ...]) -> FlatFieldCorrector:
    """Takes out a dark level, pixels that answer differently, and three that are faulty."""
    generator = np.random.default_rng(0)
    dark = generator.integers(2, 9, shape, np.uint8)
    gain = generator.integers(GAIN_ONE * 3 // 4, GAIN_ONE * 3 // 2, shape, np.int32)
    return FlatFieldCorrector(FlatField(dark, gain, np.array([7, 500, 501], np.int32)), shape)


def acquire(spec: str, seconds: float) -> dict[str, Any]:
    """Lines that came through acquisition, ring and flat field, and those lost by reason, after a warm-up."""
    with contextlib.closing(open_source(spec)) as source:
        ring = Ring(64, (source.block_lines, *line_shape(source)), "drop-newest")
        correct = corrector(line_shape(source))
        stop = threading.Event()
        acquisition = Acquisition(source, ring, stop)
        thread = threading.Thread(target=acquisition.run)
        thread.start()
        start = time.monotonic() + WARM_UP_S
        received, lost, first_ns, last_ns, cpu_s = 0, 0, 0, 0, 0.0
        while (item := ring.take()) is not None:
            counts = time.monotonic() > start
            if isinstance(item, Block):
                last_ns = item.info.arrival_time_ns
                if counts and not first_ns:
                    first_ns, cpu_s = last_ns, time.process_time()
                elif counts:
                    received += item.info.lines
                correct(item.pixels)
                ring.release(item)
            elif counts:
                lost += item.lines
            if first_ns and last_ns - first_ns > seconds * 1e9:
                break
        cpu_s = time.process_time() - cpu_s
        stop.set()
        ring.close()
        thread.join()
        passed_s = (last_ns - first_ns) / 1e9
        reasons = {name: count for name, count in ring.lost.items() if name != "stopped"}
        return {
            "lines_per_s": received / passed_s,
            "lost": lost,
            "reasons": reasons,
            "cores": cpu_s / passed_s,
            "peak_blocks": ring.peak_blocks,
            "counters": dict(source.counters),
        }


def measure(net: Wire, arguments: argparse.Namespace, rate: float) -> dict[str, Any]:
    """Tries a rate and tells what came of it."""
    camera = net.camera(arguments.width)
    size = f"width={arguments.width}&block={arguments.block}&packet={arguments.packet}"
    spec = f"aravis:127.0.0.1?{size}&line_rate={rate:.0f}"
    inside = ["--inside", spec, "--seconds", str(arguments.seconds)]
    done = net.run([sys.executable, "-m", __spec__.name, *inside], arguments.seconds)
    camera.kill()
    result: dict[str, Any] = {"asked": round(rate), **json.loads(done.stdout)}
    result["megabytes_per_s"] = result["lines_per_s"] * arguments.width / 1e6
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
    return result


def main() -> None:
    """Searches the rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--block", type=int, default=256)
    parser.add_argument("--packet", type=int, default=9000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--start", type=float, default=10000.0)
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        sys.stdout.write(json.dumps(acquire(arguments.inside, arguments.seconds)))
        return
    sys.stdout.write(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    best, rate = 0.0, arguments.start
    with wire() as net:
        while not (result := measure(net, arguments, rate))["lost"] and result["lines_per_s"] > GAIN * best:
            best, rate = result["lines_per_s"], rate * STEP
    end = (
        f"{result['lost']} lines lost at {result['lines_per_s']:.0f}"
        if result["lost"]
        else "the camera sends no faster"
    )
    sys.stdout.write(f"{best:.0f} lines/s of {arguments.width} px for {arguments.seconds:g} s without loss; {end}\n")


if __name__ == "__main__":
    main()
