"""Checks a bundle: every hash, every length, and whether its golden frames score on this machine as they should.

Exit 0 if they do, 1 if they do not or if the bundle is damaged.

  flawline verify part.flaw
"""

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="folder of the bundle")
    parser.add_argument("--backend", metavar="NAME", default="auto", help="engine (default: %(default)s)")
    parser.add_argument("--threads", metavar="N", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Verifies and prints the verdict."""
    import msgspec

    from flawline.runtime.detector import Detector
    from flawline.runtime.errors import BundleError
    from flawline.runtime.verification import verify

    if not options.bundle.is_dir():
        raise BundleError(f"{options.bundle} is not a folder; expected a bundle")
    try:
        with Detector.open(options.bundle, backend=options.backend, threads=options.threads) as detector:
            checks = verify(detector)
    except BundleError as error:
        if options.json:
            sys.stdout.write(msgspec.json.encode({"verified": False, "error": str(error)}).decode() + "\n")
        else:
            sys.stdout.write(f"DAMAGED: {error}\n")
        return 1
    verified = all(check.passed for check in checks)
    if options.json:
        sys.stdout.write(msgspec.json.encode({"verified": verified, "golden": checks}).decode() + "\n")
        return 0 if verified else 1
    sys.stdout.write("every file is whole\n")
    for index, check in enumerate(checks):
        sys.stdout.write(
            f"golden frame {index}: score {check.score:.6g}, expected {check.expected:.6g}, error {check.relative_error:.1e} "
            f"(map {check.map_relative_error:.1e}), tolerance {check.tolerance:g}: {'ok' if check.passed else 'WRONG'}\n"
        )
    sys.stdout.write(f"{'VERIFIED' if verified else 'NOT VERIFIED'} on {detector.backend}\n")
    return 0 if verified else 1
