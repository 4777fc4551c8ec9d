"""Highest line rate at which a whole `flawline stream` loses nothing of a GigE Vision camera, and what limits it.

The camera is Aravis' fake one over the loopback of a network namespace, on the same cores as what is measured; see
`measure_line_rate`. It sends an image of a web over and over. Rates are tried for some seconds each, by halving; the
highest that holds is tried for the full time, and lowered until it holds that as well.

  python -m tests.runtime.cameras.measure_web_rate --bundle fabric.flaw --web fabric.png --seconds 60

What comes when the ring is full is dropped, which ends the trial. The ring holds half a second beside two strips, the one
that is inspected and the next: a backlog does not pass for a rate.
"""

import argparse
import json
import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from flawline.benchmarks.stream.search import highest
from flawline.runtime.images import list_images, read_image
from tests.runtime.cameras.wire import Wire, wire

RING_S = 0.5
RATIO = 1.1
STEPS = ("resize", "network", "kernel", "stitch", "label", "sinks")
"""Of the stages of a strip, those that work and do not wait."""


def measure(net: Wire, web: Path, width: int, options: argparse.Namespace, rate: float, seconds: float) -> float | None:
    """Streams at a rate for some time, and tells what came of it.

    Returns:
        Lines per second that came, at most the rate; None if any were lost.
    """
    camera = net.camera(width, web=web)
    source = f"aravis:127.0.0.1?width={width}&block={options.block}&packet={options.packet}&line_rate={rate:.0f}"
    ring = math.ceil((rate * RING_S + 2 * options.strip_lines) / options.block)
    command = [sys.executable, "-m", "flawline", "stream", str(options.bundle), "--source", source, "--json"]
    command += ["--policy", "drop-newest", "--ring", str(ring), "--lines", str(math.ceil(rate * seconds))]
    command += ["--threads", str(options.threads), "--strip-lines", str(options.strip_lines), *options.stream]
    before, has_gap = resource.getrusage(resource.RUSAGE_CHILDREN), False
    with subprocess.Popen(net.inside(command), stdout=subprocess.PIPE) as process:
        for line in process.stdout or ():
            event = json.loads(line)
            if event["type"] == "gap" and not has_gap:
                has_gap = True
                process.send_signal(signal.SIGINT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    camera.kill()
    if process.returncode:
        sys.exit(f"{command} ended with {process.returncode}")
    summary = event
    lost = {reason: lines for reason, lines in summary["lines_lost"].items() if reason != "stopped"}
    work = sum(summary["stage_shares"].get(step, 0.0) for step in STEPS)
    result: dict[str, Any] = {
        "asked": round(rate),
        "seconds": seconds,
        "lines_per_s": summary["line_rate_held"],
        "megabytes_per_s": summary["line_rate_held"] * width / 1e6,
        "lost": lost,
        # From its start to its end: the loading of the detector as well.
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "cores": (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / summary["seconds"],
        "work": {step: summary["stage_shares"].get(step, 0.0) / work for step in STEPS},
        "ring_peak": f"{summary['ring_peak_blocks']} of {ring} blocks",
        "latency_ms": summary["latency_ms"],
        "defects": summary["defects"],
    }
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
    # A fake camera that is late sends less than it was asked for.
    return None if lost else min(rate, summary["line_rate_held"])


def main() -> None:
    """Searches the rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="of a web")
    parser.add_argument(
        "--web", type=Path, required=True, help="grey image of a web, or a folder whose images are joined"
    )
    parser.add_argument("--block", type=int, default=128)
    parser.add_argument("--strip-lines", type=int, default=512)
    parser.add_argument("--packet", type=int, default=9000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--trial-seconds", type=float, default=10.0)
    parser.add_argument("--lowest", type=float, default=250.0)
    parser.add_argument("--highest", type=float, default=32000.0)
    parser.add_argument("stream", nargs="*", help="further options of `flawline stream`, behind a --")
    options = parser.parse_args()
    images = list_images(options.web) if options.web.is_dir() else [options.web]
    rows = np.concatenate([read_image(path) for path in images])
    sys.stdout.write(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    with tempfile.TemporaryDirectory() as folder, wire() as net:
        web, width = Path(folder) / "web.npy", rows.shape[1]
        np.save(web, rows)
        rate = highest(
            lambda rate: measure(net, web, width, options, rate, options.trial_seconds) is not None,
            options.lowest,
            options.highest,
            RATIO,
        )
        held = None
        while rate and rate >= options.lowest and held is None:
            held = measure(net, web, width, options, rate, options.seconds)
            rate /= RATIO
    if held is None:
        sys.exit(f"not even {options.lowest:g} lines/s are held")
    sys.stdout.write(
        f"{held:.0f} lines/s of {width} px, {held * width / 1e6:.1f} MB/s, for {options.seconds:g} s without loss\n"
    )


if __name__ == "__main__":
    main()
