"""What is done to lines before they are inspected, the same way in fit and stream: shading out, edges found."""

import numpy as np
import numpy.typing as npt

from flawline.runtime.bundle.manifest import Web
from flawline.runtime.web.edges import EdgeFinder
from flawline.runtime.web.shading import level
from flawline.runtime.web.strips import Lines


class Conditioner:
    """Prepares lines in place and finds the edges of the web on them.

    Args:
        web: What the bundle says of edges and shading.
    """

    def __init__(self, web: Web) -> None:
        self._web = web
        self._find_edges = EdgeFinder()

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to do."""
        return self._web.edges is not None or self._web.shading is not None

    @property
    def crossed_lines(self) -> int:
        """Lines whose edges crossed each other, see `EdgeFinder`."""
        return self._find_edges.crossed_lines

    def __call__(self, lines: Lines, first_line: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Takes the shading out and finds the edges.

        Args:
            lines: uint8 (n, width[, channels]), groups of `GROUP_LINES` lines; changed in place.
            first_line: Number of the first.

        Returns:
            Left and right edge of the web, float32 (n,), pixels.
        """
        if self._web.edges is None:
            edges = np.zeros(len(lines), np.float32), np.full(len(lines), lines.shape[1], np.float32)
        else:
            edges = self._find_edges(lines, first_line)
        if self._web.shading is not None:
            level(lines, first_line, edges, self._web.shading)
        return edges
