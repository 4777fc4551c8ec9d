"""Options that several benchmarks share, and how their words are read."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def add_output(parser: argparse.ArgumentParser) -> None:
    """Where the result goes."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything, with the environment, as JSON")


def add_network(parser: argparse._ActionsContainer, *, backbone: str) -> None:
    """Which network is measured."""
    parser.add_argument(
        "--backbone", metavar="NAME", default=backbone, help="network or .onnx file (default: %(default)s)"
    )
    parser.add_argument("--layers", metavar="A,B,...", type=words, help="feature layers (default: the network's)")
    parser.add_argument("--weights", metavar="FILE", help=".pth, .safetensors or .npz; 'random' for timing only")
    parser.add_argument("--image-size", metavar="N", type=int, help="height and width of the input, px (default: 224)")


def add_threads(parser: argparse.ArgumentParser) -> None:
    """How many threads compute."""
    cores = os.cpu_count() or 1
    parser.add_argument("--threads", metavar="N", type=positive, default=cores, help="default: all cores")


def say(line: str) -> None:
    """Tells on standard error what is being done."""
    sys.stderr.write(line + "\n")


def words(text: str) -> tuple[str, ...]:
    """Words separated by commas."""
    return tuple(text.split(","))


def positive(text: str) -> int:
    """A whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number}; expected 1 or more")
    return number


def several(read: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    """Reads values separated by commas, each by `read`."""

    def values(text: str) -> tuple[T, ...]:
        return tuple(read(word) for word in text.split(","))

    return values
