"""Measurements, each with the machine it was made on, and the whole tail of every time; roofline alone computes.

Every benchmark prints tables; --json FILE writes everything, with settings, environment and what each number means.
Results of different machines are not comparable.
"""

import argparse

from flawline.benchmarks.commands import (
    bench_accuracy,
    bench_endurance,
    bench_gpu,
    bench_jl,
    bench_kernels,
    bench_latency,
    bench_paper,
    bench_peers,
    bench_pse,
    bench_roofline,
    bench_seams,
    bench_stream,
    bench_web,
)
from flawline.runtime.commands.subcommands import add_subcommands

BENCHMARKS = {
    "latency": (bench_latency, "time of a frame, per stage and end to end; bytes; peak memory"),
    "kernels": (bench_kernels, "the Mahalanobis step against memory bandwidth, ONNX Runtime and NumPy"),
    "pse": (bench_pse, "the Proximally Sensitive Error against OpenCV and memory bandwidth"),
    "jl": (bench_jl, "what the projection gains and what it costs, by dimension"),
    "accuracy": (bench_accuracy, "accuracy of the real path over several splits"),
    "gpu": (bench_gpu, "kernels and whole frames on an NVIDIA GPU"),
    "roofline": (bench_roofline, "what devices could do at best, computed from their data sheets"),
    "seams": (bench_seams, "what seams do to scores, with context and without"),
    "endurance": (bench_endurance, "an hour of web: memory, drops, positions and clock"),
    "stream": (bench_stream, "the fastest and the widest web that is inspected without a drop"),
    "web": (bench_web, "detection on webs of fabric, tile by tile"),
    "paper": (bench_paper, "what papers report of their detectors, and what is measured here, side by side"),
    "peers": (bench_peers, "time, memory, size and accuracy beside other packages that offer PaDiM"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the benchmarks and their arguments."""
    add_subcommands(parser, BENCHMARKS, "benchmark")


def run(args: argparse.Namespace) -> int:
    """Runs the chosen benchmark."""
    return int(args.run_benchmark(args))
