"""Measures the Mahalanobis step: one Gaussian per position, types and forms of packed factors, one frame and a batch.

The kernel, a plain read of the same bytes and ONNX Runtime's MatMul with the full fp32 inverse take turns in one run,
once with everything in the cache and once rotating among copies that exceed the last-level cache. Wants a quiet
machine.

  flawline bench kernels
  flawline bench kernels --dim 100 --factors float16,int8 --form triangle,woodbury --threads 1
"""

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from flawline.benchmarks.commands.options import add_output, positive, say, several
from flawline.benchmarks.environment import describe
from flawline.benchmarks.kernels import BATCH, FRAMES_OF_A_BATCH, Measured, measure
from flawline.benchmarks.record import heading, result, unstable
from flawline.benchmarks.tables import table, write_json
from flawline.benchmarks.timing import null_overhead
from flawline.export.commands.options import words
from flawline.runtime.errors import InputError

FACTORS = ("float16", "float32", "int8")
FORMS = ("triangle", "woodbury")
MEANING = {
    "kernel": "distances of one frame's vectors, in memory, to one Gaussian per position; native, from Python",
    "read": "every byte of the same factors read once by the fastest means known here, same threads",
    "kernel, 8 frames": "the kernel with a batch that shares each factor",
    "onnxruntime": "MatMul, Mul, ReduceSum with the full fp32 inverse; vectors centred beforehand, no square root",
    "numpy": "the same by numpy.matmul, on as many threads as it takes",
    "share_of_read": "p50 of read over p50 of kernel; stored factor bytes only, though the kernel reads means and "
    "vectors too",
    "cache": "each timed call follows untimed ones of the same case",
    "memory": "each call takes the next of several copies that together exceed the last-level cache",
    "times_cheaper_in_a_batch": "p50 of one frame over p50 of the batch per frame",
    "rank": "rows r of a factor in the Woodbury form; null for triangles",
    "necessary_bytes": "d (d + 1) / 2 numbers per position; r (2 d - r + 1) / 2 in the Woodbury form",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `flawline bench kernels`."""
    parser.add_argument(
        "--dim", metavar="D,...", type=several(positive), default=(32, 100, 150), help="default: 32,100,150"
    )
    parser.add_argument("--positions", metavar="P", type=positive, default=3136, help="default: %(default)s")
    parser.add_argument(
        "--factors", metavar="TYPE,...", type=words, default=FACTORS, help="default: float16,float32,int8"
    )
    parser.add_argument(
        "--form", metavar="FORM,...", type=words, default=FORMS[:1], help="triangle, woodbury (default: triangle)"
    )
    parser.add_argument(
        "--rank", metavar="R", type=positive, help="rows in the form woodbury (default: half of the dimension)"
    )
    parser.add_argument("--threads", metavar="N,...", type=several(positive), default=(1, 2), help="default: 1,2")
    parser.add_argument("--rounds", metavar="N", type=positive, default=100, help="timed calls (default: %(default)s)")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Runs `flawline bench kernels`."""
    if unknown := set(args.factors) - set(FACTORS):
        raise InputError(f"--factors {','.join(sorted(unknown))}: expected {' or '.join(FACTORS)}")
    if unknown := set(args.form) - set(FORMS):
        raise InputError(f"--form {','.join(sorted(unknown))}: expected {' or '.join(FORMS)}")
    if args.rank and args.rank > min(args.dim):
        raise InputError(f"--rank {args.rank}: expected at most the lowest dimension, {min(args.dim)}")
    environment, null = describe(), null_overhead()
    cache_bytes = max(environment.caches_bytes.values(), default=0)
    measured: list[Measured] = []
    for dimension, factors, form in itertools.product(args.dim, args.factors, args.form):
        rank = None if form == "triangle" else args.rank or max(1, dimension // 2)
        say(f"d = {dimension}, {factors} factors" + (f" of rank {rank}" if rank else ""))
        measured += measure(
            dimension,
            factors,
            threads=args.threads,
            cache_bytes=cache_bytes,
            rank=rank,
            positions=args.positions,
            rounds=args.rounds,
        )
    if args.json:
        settings = {"positions": args.positions, "rounds": args.rounds, "threads": list(args.threads)}
        results = {"kernels": [asdict(one) | _ratios(one) for one in measured]}
        write_json(
            args.json, result("kernels", environment, settings=settings, meaning=MEANING, results=results, null=null)
        )
    sys.stdout.write("\n".join([heading(environment, null), "", *_text(measured)]) + "\n")
    for one in measured:
        name = f"{_case(one)}, threads {one.threads}, {one.residence}"
        for line in unstable({f"{name}, {case}": timing for case, timing in one.timings.items()}):
            say(line)
    return 0


def _case(one: Measured) -> str:
    return f"d {one.dimension} {one.factors}" + (f" rank {one.rank}" if one.rank else "")


def _ratios(one: Measured) -> dict[str, float]:
    return {
        "bytes_per_second": one.bytes_per_second,
        "share_of_read": one.share_of_read,
        "times_cheaper_in_a_batch": one.times_cheaper_in_a_batch,
        "times_faster_than_onnxruntime": one.times_faster_than("onnxruntime"),
        "times_faster_than_numpy": one.times_faster_than("numpy"),
    }


def _text(measured: Sequence[Measured]) -> Iterator[str]:
    heads = (
        "case",
        "MB",
        "p50 ms",
        "p90",
        "p99",
        "max",
        "GB/s",
        "of read",
        f"ms/frame of {FRAMES_OF_A_BATCH}",
        "cheaper",
        "ORT",
        "NumPy",
    )
    rows = [
        (
            f"{_case(one)} threads {one.threads} {one.residence}",
            f"{one.factor_bytes / 1e6:.1f}",
            *one.timings["kernel"].ms(),
            f"{one.bytes_per_second / 1e9:.1f}",
            f"{one.share_of_read:.0%}",
            f"{one.timings[BATCH].p50_ns / 1e6 / FRAMES_OF_A_BATCH:.3f}",
            f"{one.times_cheaper_in_a_batch:.1f} x",
            f"{one.times_faster_than('onnxruntime'):.1f} x",
            f"{one.times_faster_than('numpy'):.1f} x",
        )
        for one in measured
    ]
    yield table(heads, rows)
    yield ""
    yield (
        "MB: stored factors. of read: share of the bandwidth of a plain read of the same bytes. cheaper: a frame of the "
        "batch than one alone. ORT, NumPy: times faster than those."
    )
    for one in measured:
        if one.residence == "memory" and not one.exceeds_cache:
            yield f"{_case(one)}: memory allows only {one.copies} copies, less than the cache holds"
