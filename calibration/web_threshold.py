"""Scores of good strips: what a threshold for an endless web is calibrated on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from flawline.calibration.good_web import GoodWeb
from flawline.calibration.web_pieces import Piece
from flawline.runtime.bundle import Bundle
from flawline.runtime.bundle.contents import Golden
from flawline.runtime.bundle.manifest import PadimManifest
from flawline.runtime.precisions import ENGINES
from flawline.runtime.progress import progress
from flawline.runtime.web.inspector import WebInspector


@dataclass(frozen=True, eq=False)
class WebModel:
    """A detector for webs before it is a bundle.

    Attributes:
        manifest: What it will say.
        features: The feature graph, for one size of window or for any.
        statistics: Tensors by name.
        golden: None yet.
    """

    manifest: PadimManifest
    features: bytes
    statistics: Mapping[str, npt.NDArray[Any]]
    golden: Sequence[Golden] = ()

    @property
    def padim(self) -> PadimManifest:
        """The manifest, see `Bundle`."""
        return self.manifest


def strip_maxima(
    model: WebModel, web: GoodWeb, pieces: Sequence[Piece], label: str, *, threads: int
) -> npt.NDArray[np.float32]:
    """The largest value of the anomaly map in every strip.

    Args:
        model: The detector.
        web: Where the pieces are from.
        pieces: Good web that was not fitted.
        label: Of the progress bar.
        threads: Threads of engine and kernel.

    Returns:
        float32 (n,), a score per strip: `GoodWeb.strips`.

    Raises:
        FlawlineError: A strip cannot be scored.
    """
    rows = web.geometry.strip_rows
    maxima = []
    backend = ENGINES[model.manifest.network.precision][0]
    # A model has what the inspector takes of a bundle, as long as the engine is named.
    with WebInspector(cast(Bundle, model), pieces[0].width, backend=backend, threads=threads) as inspector:
        for piece in progress(pieces, label=label, unit="piece"):
            values, _ = inspector.inspect_piece(np.array(piece.load()))
            maxima += [values[row : row + rows].max() for row in range(0, len(values), rows)]
    return np.array(maxima, np.float32)
