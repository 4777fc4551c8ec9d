"""The words that follow a command, each a module of its own: `flawline bench latency`, `flawline camera test`."""

import argparse
from collections.abc import Mapping
from types import ModuleType


def add_subcommands(
    parser: argparse.ArgumentParser, subcommands: Mapping[str, tuple[ModuleType, str]], title: str
) -> None:
    """Declares what may follow a command, and the arguments of each.

    Args:
        parser: Of the command.
        subcommands: By name the module, with a docstring for --help, `add_arguments` and `run`, and a summary.
        title: What one of them is called. The module's `run` becomes the argument `run_TITLE`.
    """
    subparsers = parser.add_subparsers(dest=title, metavar=title.upper(), required=True)
    for name, (module, summary) in subcommands.items():
        subparser = subparsers.add_parser(
            name, help=summary, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.add_arguments(subparser)
        subparser.set_defaults(**{f"run_{title}": module.run})
