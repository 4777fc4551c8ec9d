"""Options that several benchmarks share, and how their words are read."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from flawline.export.options import FitOptions
from flawline.runtime.precisions import PRECISIONS

T = TypeVar("T")


def add_output(parser: argparse.ArgumentParser) -> None:
    """Where the result goes."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything, with the environment, as JSON")


def add_data(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Which labelled images are measured on."""
    parser.add_argument(
        "--data", metavar="SPEC", required=required, help="elpv-mono, elpv-poly, or a folder in the MVTec layout"
    )


def add_precisions(parser: argparse._ActionsContainer, default: str) -> None:
    """In which precisions the network is measured.

    Args:
        parser: Takes the option.
        default: What it says of leaving the option out.
    """
    parser.add_argument(
        "--precisions",
        metavar="P,...",
        type=several(one_of(PRECISIONS)),
        help=f"of the network: {', '.join(PRECISIONS)} (default: {default})",
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    """How many threads compute."""
    parser.add_argument(
        "--threads", metavar="N", type=positive, default=FitOptions().threads, help="default: all cores"
    )


def say(line: str) -> None:
    """Tells on standard error what is being done."""
    sys.stderr.write(line + "\n")


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}'; expected a whole number, 1 or more")
    return int(text)


def one_of(known: Sequence[T]) -> Callable[[str], T]:
    """Reads one of the words that are known."""

    def word(text: str) -> T:
        for one in known:
            if one == text:
                return one
        raise argparse.ArgumentTypeError(f"'{text}'; expected {', '.join(map(str, known))}")

    return word


def several(read: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    """Reads values separated by commas, each by `read`."""

    def values(text: str) -> tuple[T, ...]:
        return tuple(read(word) for word in text.split(","))

    return values
