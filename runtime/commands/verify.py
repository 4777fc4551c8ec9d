"""Checks a bundle: every hash, every length, and whether its golden frames score on this machine as they should.

Exit 0 if they do, 1 if they do not or if the bundle is damaged, 2 if it is no bundle or cannot be used here.

  flawline verify part.flaw
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flawline.runtime.commands.options import add_engine

if TYPE_CHECKING:
    from flawline.runtime.verification import GoldenCheck


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="folder of the bundle")
    add_engine(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Verifies and prints the verdict."""
    import msgspec

    from flawline.runtime.backends import preferred_engine
    from flawline.runtime.bundle import read
    from flawline.runtime.engines import fastest_engine, open_scorer
    from flawline.runtime.errors import BundleError, EngineError, NewerFormatError, NotABundleError
    from flawline.runtime.images import use_threads
    from flawline.runtime.verification import verify

    use_threads(options.threads)
    try:
        whole = read(options.bundle)
        for precision in whole.precisions:
            whole.select(precision)  # checks its tensors
        bundle = whole.select(options.precision)
        backend = options.backend
        if backend == "auto":
            try:
                backend = fastest_engine(bundle, threads=options.threads)
            except EngineError:
                backend = preferred_engine(bundle.manifest.network.precision)
        with open_scorer(bundle, backend, threads=options.threads) as scorer:
            checks = verify(bundle, scorer)
    except (NotABundleError, NewerFormatError, EngineError):
        raise  # Nothing is damaged: another folder, version or engine is what is needed.
    except BundleError as error:
        if options.json:
            sys.stdout.write(msgspec.json.encode({"verified": False, "error": str(error)}).decode() + "\n")
        else:
            sys.stdout.write(f"DAMAGED: {error}\n")
        return 1
    verified = all(check.passed for check in checks)
    if options.json:
        facts = {"backend": scorer.backend, "precision": bundle.manifest.network.precision}
        sys.stdout.write(msgspec.json.encode({"verified": verified, **facts, "golden": checks}).decode() + "\n")
        return 0 if verified else 1
    sys.stdout.write("every file is whole\n")
    for index, check in enumerate(checks):
        sys.stdout.write(f"golden frame {index}: {_line(check)}: {'ok' if check.passed else 'WRONG'}\n")
    untried = [precision for precision in whole.precisions if precision != bundle.manifest.network.precision]
    others = f"; not tried: --precision {', '.join(untried)}" if untried else ""
    outcome = "VERIFIED" if verified else "NOT VERIFIED"
    sys.stdout.write(f"{outcome} in {bundle.manifest.network.precision} on {scorer.backend}{others}\n")
    return 0 if verified else 1


def _line(check: "GoldenCheck") -> str:
    if check.score is None:
        return f"no score, expected {check.expected:.6g} ({check.problem})"
    return (
        f"score {check.score:.6g}, expected {check.expected:.6g}, error {check.relative_error:.1e} "
        f"(map {check.map_relative_error:.1e}), tolerance {check.tolerance:g}"
    )
