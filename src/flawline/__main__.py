"""The `flawline` command: finds the subcommand, imports only that, and turns errors into one line."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from flawline import __version__
from flawline.runtime.errors import FlawlineError

COMMANDS = {
    "fit": ("flawline.export.commands.fit", "fit a detector on a folder of good images"),
    "score": ("flawline.runtime.commands.score", "score images: verdicts, p-values, boxes, overlays"),
    "evaluate": ("flawline.benchmarks.commands.evaluate", "accuracy on a labelled folder"),
    "export": (
        "flawline.export.commands.export",
        "another precision, a TensorRT engine, or one ONNX file for other runtimes",
    ),
    "info": ("flawline.runtime.commands.info", "what is in a bundle"),
    "verify": (
        "flawline.runtime.commands.verify",
        "whether a bundle is whole and scores its golden frames as it should",
    ),
    "stream": ("flawline.runtime.commands.stream", "line camera to defects"),
    "camera": (
        "flawline.runtime.commands.camera",
        "which line cameras are there, whether one holds its rate, flat fields",
    ),
    "bench": (
        "flawline.benchmarks.commands.bench",
        "latency, kernels, accuracy, the effect of the projection, other packages",
    ),
    "demo": ("flawline.benchmarks.commands.demo", "the main job, on real images, end to end"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one subcommand.

    Args:
        arguments: The words after `flawline`; those of the process if None.

    Returns:
        0 done, 1 the answer is no, 2 the input, the installation or the machine is at fault, 130 interrupted.
    """
    options = _parse(list(sys.argv[1:] if arguments is None else arguments))
    try:
        status = int(options.run(options))
        # Here and not at exit, where a full disk could no longer change the status.
        sys.stdout.flush()
    except FlawlineError as error:
        status = _complain(options.command, str(error))
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): nothing is wrong, and nothing more can be said.
        status = 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        status = _complain(options.command, f"{where}{error.strerror or error}; the work is not complete")
    except MemoryError:
        status = _complain(options.command, "out of memory; ask for less at once, or free some")
    except KeyboardInterrupt:
        status = 130
    _settle_output()
    return status


def _parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="flawline",
        description="Image anomaly detectors from good images to a line camera on an edge device.",
        epilog="`flawline COMMAND --help` explains a command.",
    )
    parser.add_argument("--version", action="version", version=f"flawline {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((word for word in words if not word.startswith("-")), None)
    for name, (module_name, summary) in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary)
        if name == chosen:
            module = importlib.import_module(module_name)
            subparser.description = module.__doc__
            subparser.formatter_class = argparse.RawDescriptionHelpFormatter
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    options, unknown = parser.parse_known_args(words)
    if unknown:
        # By the command's own parser, so that its usage is shown and not that of `flawline`.
        subparsers.choices[options.command].error(f"unrecognized arguments: {' '.join(unknown)}")
    return options


def _complain(command: str, message: str) -> int:
    sys.stderr.write(f"flawline {command}: {message}\n")
    return 2


def _settle_output() -> None:
    """Gives up what standard output does not take: the interpreter would try again at exit, and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
