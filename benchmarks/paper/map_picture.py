"""Pictures of maps side by side, like figure 1 of Feeney and others (2021)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flawline.benchmarks.plots import figure_file
from flawline.runtime.errors import InputError

_CELL_INCHES = 1.15
_LEFT_INCHES = 0.9


def picture_of_maps(path: Path, columns: Mapping[str, npt.NDArray[Any]], rows: Sequence[str], *, title: str) -> None:
    """Draws one row per image, one column per map: input, reconstruction, saliency and so on, in grey.

    Args:
        path: PNG file to write.
        columns: By title, float or uint8 (B, height, width). Integers are drawn from 0 to 255, floats from 0 to the
            maximum of each map.
        rows: Names of the B images; equal ones that follow each other are named once.
        title: Above all.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: A column has not as many maps as there are rows, or the file cannot be written.
    """
    for name, maps in columns.items():
        if maps.ndim != 3 or len(maps) != len(rows) or not maps.size:
            raise InputError(f"column '{name}' of shape {maps.shape}; expected ({len(rows)}, height, width)")
    if not columns:
        raise InputError("no column to draw; expected at least one")
    size = (_LEFT_INCHES + _CELL_INCHES * len(columns), 0.6 + _CELL_INCHES * len(rows))
    with figure_file(path, width=size[0], height=size[1]) as figure:
        grid = figure.subplots(len(rows), len(columns), squeeze=False)
        for j, (name, maps) in enumerate(columns.items()):
            grid[0, j].set_title(name, fontsize=9, fontweight="normal", loc="center")
            for i, values in enumerate(maps):
                top = 255.0 if maps.dtype == np.uint8 else max(float(values.max()), np.finfo(np.float32).tiny)
                grid[i, j].imshow(values, cmap="gray", vmin=0.0, vmax=top, interpolation="nearest")
                grid[i, j].set(xticks=[], yticks=[])
        for i, name in enumerate(rows):
            if not i or rows[i - 1] != name:
                grid[i, 0].set_ylabel(name, fontsize=9)
        figure.suptitle(title, fontsize=11, fontweight="bold")
