"""Measures the Proximally Sensitive Error of grey images: map, maximum and mean in one pass.

The kernel, OpenCV's calls for the same (subtract, sepFilter2D, multiply, minMaxLoc) and a plain read and write of the same
bytes take turns in one run, each call on the next of several copies that exceed the last-level cache. Wants a quiet
machine.

  flawline bench pse
  flawline bench pse --size 2048 --sigma 0,2,8 --dtypes uint8 --threads 1
"""

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from flawline.benchmarks.commands.options import add_output, one_of, positive, say, several
from flawline.benchmarks.environment import describe
from flawline.benchmarks.proximal import Measured, measure
from flawline.benchmarks.record import heading, result, unstable
from flawline.benchmarks.tables import table, write_json
from flawline.benchmarks.timing import null_overhead
from flawline.runtime.errors import InputError
from flawline.runtime.kernels.pse import proximity_taps

DTYPES = ("float32", "uint8")
MEANING = {
    "kernel": "map, maximum and mean of one image, called from Python, everything allocated beforehand",
    "score": "the same without the map",
    "opencv": "cv2.subtract, sepFilter2D, multiply and minMaxLoc in sequence, into arrays allocated beforehand",
    "read": "every byte of image and reconstruction read once by the fastest means known here, same threads",
    "write": "the map filled with zeros by NumPy, one thread",
    "limit_ns": "p50 of read plus p50 of write: the bytes of the error over bandwidth",
    "share_of_limit": "limit_ns over p50 of kernel",
    "copies": "each call takes the next of as many images, reconstructions and maps",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `flawline bench pse`."""
    parser.add_argument("--size", metavar="N", type=positive, default=1024, help="height and width, px (default: 1024)")
    parser.add_argument("--sigma", metavar="S,...", type=several(_sigma), default=(2.0,), help="px (default: 2)")
    parser.add_argument(
        "--dtypes", metavar="TYPE,...", type=several(one_of(DTYPES)), default=DTYPES, help="default: float32,uint8"
    )
    parser.add_argument("--threads", metavar="N,...", type=several(positive), default=(1, 2), help="default: 1,2")
    parser.add_argument("--rounds", metavar="N", type=positive, default=300, help="timed calls (default: %(default)s)")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Runs `flawline bench pse`."""
    environment, null = describe(), null_overhead()
    cache_bytes = max(environment.caches_bytes.values(), default=0)
    measured: list[Measured] = []
    for dtype, sigma_px, threads in itertools.product(args.dtypes, args.sigma, args.threads):
        say(f"{dtype}, sigma {sigma_px:g} px, threads {threads}")
        measured.append(
            measure(args.size, sigma_px, dtype, threads=threads, cache_bytes=cache_bytes, rounds=args.rounds)
        )
    if args.json:
        settings = {"size_px": args.size, "rounds": args.rounds, "threads": list(args.threads)}
        results = {"errors": [asdict(one) | _ratios(one) for one in measured]}
        write_json(
            args.json, result("pse", environment, settings=settings, meaning=MEANING, results=results, null=null)
        )
    sys.stdout.write("\n".join([heading(environment, null), "", *_text(measured)]) + "\n")
    for one in measured:
        for line in unstable({f"{_case(one)}, {case}": timing for case, timing in one.timings.items()}):
            say(line)
    return 0


def _sigma(text: str) -> float:
    try:
        sigma_px = float(text)
        proximity_taps(sigma_px)
    except (ValueError, InputError):
        raise argparse.ArgumentTypeError(f"'{text}'; expected pixels, 0 to 1000") from None
    return sigma_px


def _case(one: Measured) -> str:
    return f"{one.dtype} sigma {one.sigma_px:g} threads {one.threads}"


def _ratios(one: Measured) -> dict[str, float]:
    return {
        "times_faster_than_opencv": one.times_faster_than_opencv,
        "limit_ns": one.limit_ns,
        "share_of_limit": one.share_of_limit,
    }


def _text(measured: Sequence[Measured]) -> Iterator[str]:
    heads = ("case", "MB", "p50 ms", "p90", "p99", "max", "no map", "OpenCV ms", "OpenCV", "limit ms", "of limit")
    rows = [
        (
            _case(one),
            f"{(one.read_bytes + one.written_bytes) / 1e6:.1f}",
            *one.timings["kernel"].ms(),
            one.timings["score"].ms()[0],
            one.timings["opencv"].ms()[0],
            f"{one.times_faster_than_opencv:.2f} x",
            f"{one.limit_ns / 1e6:.3f}",
            f"{one.share_of_limit:.0%}",
        )
        for one in measured
    ]
    yield table(heads, rows)
    yield ""
    yield (
        "MB: image, reconstruction and map. no map: p50 of maximum and mean alone. OpenCV: times faster than its calls. "
        "limit: a plain read of both inputs and a plain write of the map."
    )
    for one in measured:
        if not one.exceeds_cache:
            yield f"{_case(one)}: memory allows only {one.copies} copies, less than the cache holds"
