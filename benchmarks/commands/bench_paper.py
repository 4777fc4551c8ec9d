"""Repeats the experiments of papers: what they report and what is measured here, side by side.

Where the direction differs from what a paper claims, the output says so. `flawline bench paper EXPERIMENT --help` explains an
experiment.
"""

import argparse

from flawline.benchmarks.commands import bench_paper_center_loss, bench_paper_pse, bench_paper_saliency
from flawline.runtime.commands.subcommands import add_subcommands

EXPERIMENTS = {
    "center-loss": (
        bench_paper_center_loss,
        "images out of the distribution, by Mahalanobis distance of a classifier's deep features and by a second head",
    ),
    "pse": (bench_paper_pse, "the Proximally Sensitive Error against the squared error: detection and pre-training"),
    "saliency": (bench_paper_saliency, "error maps against saliency maps of an autoencoder, on MNIST"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the experiments and their arguments."""
    add_subcommands(parser, EXPERIMENTS, "experiment")


def run(args: argparse.Namespace) -> int:
    """Runs the chosen experiment."""
    return int(args.run_experiment(args))
