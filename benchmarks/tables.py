"""Plain text tables and JSON files of results."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flawline.runtime.files import write_whole


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lays out a table: first column to the left, the others to the right, one blank line neither before nor after."""
    cells = [[str(cell) for cell in row] for row in (headers, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    lines = []
    for first, *others in cells:
        padded = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        lines.append("  ".join(padded).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def write_json(path: Path, result: Mapping[str, Any]) -> None:
    """Writes a result to a file, whole or not at all.

    Raises:
        InputError: The file cannot be written.
        ResourceError: The disk is full.
    """
    write_whole(path, dumps(result).encode())


def dumps(result: Mapping[str, Any]) -> str:
    """JSON with a final newline; NaN and infinity are refused, since they are not JSON."""
    return json.dumps(result, indent=2, allow_nan=False) + "\n"
