"""Lists the cameras that answer, of every kind, each with the name that opens it.

A kind whose library is missing is told on standard error; the list goes on without it.
Basler's emulated cameras are listed with PYLON_CAMEMU=1 in the environment; GenTL producers are those that
GENICAM_GENTL64_PATH leads to.

  flawline camera list
  flawline camera list --json
"""

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("--json", action="store_true", help="one JSON document: cameras, and kinds not looked for")


def run(options: argparse.Namespace) -> int:
    """Looks for cameras of every kind. Returns 0, also if there is none."""
    import msgspec

    from flawline.runtime.cameras import SCHEMES, FoundCamera
    from flawline.runtime.errors import FlawlineError

    cameras: list[FoundCamera] = []
    unavailable: dict[str, str] = {}
    for kind, scheme in SCHEMES.items():
        if scheme.discover is not None:
            try:
                cameras += scheme.discover()
            except FlawlineError as error:
                unavailable[kind] = str(error)
    if options.json:
        document = {"cameras": [camera._asdict() for camera in cameras], "unavailable": unavailable}
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")
        return 0
    rows = [("name", "model", "serial", "address", "user's name"), *cameras]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows if cameras else ():
        sys.stdout.write("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() + "\n")
    if not cameras:
        sys.stdout.write("no camera answers\n")
    for kind, reason in unavailable.items():
        sys.stderr.write(f"flawline camera list: {kind}: not looked for: {reason}\n")
    return 0
