"""Repeats the experiments of papers: what they report and what is measured here, side by side.

Where the direction differs from what a paper claims, the output says so. `flawline bench paper EXPERIMENT --help` explains an
experiment.
"""

import argparse

from flawline.benchmarks.commands import bench_paper_pse, bench_paper_saliency

EXPERIMENTS = {
    "pse": (bench_paper_pse, "the Proximally Sensitive Error against the squared error: detection and pre-training"),
    "saliency": (bench_paper_saliency, "error maps against saliency maps of an autoencoder, on MNIST"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the experiments and their arguments."""
    subparsers = parser.add_subparsers(dest="experiment", metavar="EXPERIMENT", required=True)
    for name, (module, summary) in EXPERIMENTS.items():
        subparser = subparsers.add_parser(
            name, help=summary, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.add_arguments(subparser)
        subparser.set_defaults(run_experiment=module.run)


def run(args: argparse.Namespace) -> int:
    """Runs the chosen experiment."""
    return int(args.run_experiment(args))
