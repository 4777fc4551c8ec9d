"""Lines of the web in, rows of its anomaly map out: strips, windows, the network, the kernel, stitching and smoothing."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from flawline.runtime.backends import preferred_engine
from flawline.runtime.bundle import Bundle
from flawline.runtime.engines import AnyScorer, fastest_engine, is_on_gpu, open_scorer
from flawline.runtime.errors import DeviceError, FlawlineError, InputError
from flawline.runtime.memory import require
from flawline.runtime.web.conditioning import Conditioner
from flawline.runtime.web.geometry import Geometry, in_geometry
from flawline.runtime.web.stitching import MapRows, Stitcher
from flawline.runtime.web.strips import Lines, Strip, StripBuffer

SMALLEST_WIDTH_PX = 16

WARMUP_STRIPS = 3
"""On a GPU the second is captured into a graph, and the third comes from it as all later ones."""


@dataclass(frozen=True, eq=False, slots=True)
class InspectedStrip:
    """A strip that went through the network.

    Attributes:
        first_line: Number of the first line of its window's tile.
        end: Line behind its last one.
        rows: Rows of the anomaly map that are complete with it: later ones than its own by the reach of the smoothing.
        left: float32 (n,), left edge of the web, pixels, on its lines.
        right: float32 (n,), right edge.
        window: uint8, its pixels with their context; overwritten by the next strip.
        timings_ns: Nanoseconds of each stage.
        start_ns: `time.monotonic_ns()` before the network was called.
        error: Why it could not be scored, and its rows are masked; None if it was. After a `DeviceError` no later strip can
            be scored either.
    """

    first_line: int
    end: int
    rows: MapRows
    left: npt.NDArray[np.float32]
    right: npt.NDArray[np.float32]
    window: Lines
    timings_ns: dict[str, int]
    start_ns: int = 0
    error: FlawlineError | None = None


@dataclass
class WebInspector:
    """Scores a web of one width, strip by strip. Everything is allocated here.

    Args:
        bundle: One for a web, in the precision that is wanted.
        width: Pixels of a line.
        strip_lines: Height of a strip; that of the bundle if None. The results do not depend on it, the latency does.
        tile_px: Width of a tile; that of the bundle if None.
        backend: Name of the engine, or `auto`.
        threads: Threads of engine and kernel.
        batch: Tiles that go through the network at once; all that lie side by side if None.
        fallback: Whether to go on with an engine on the CPU where a GPU cannot be had or fails.

    Attributes:
        geometry: Of strips and tiles.
        backend: Name of the engine that runs.
        fallback_reason: Why it runs on the CPU and not on the GPU that was asked for; None if it does not.

    Raises:
        See `Detector.open`; InputError also for a geometry that does not fit the bundle, ResourceError for strips and tiles
            that do not fit into memory.
    """

    bundle: Bundle
    width: int
    strip_lines: int | None = None
    tile_px: int | None = None
    backend: str = "auto"
    threads: int = 1
    batch: int | None = None
    fallback: bool = False
    geometry: Geometry = field(init=False)
    fallback_reason: str | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Opens the engine and allocates."""
        manifest = self.bundle.padim
        self.geometry = Geometry.of(manifest).resized(self.strip_lines, self.tile_px)
        web = manifest.web
        assert web is not None  # or there were no geometry
        if self.width < SMALLEST_WIDTH_PX:
            raise InputError(f"lines of {self.width} px; expected at least {SMALLEST_WIDTH_PX}")
        tiles = self.geometry.tiles(self.width)
        if manifest.gaussian.tie == "column" and tiles > 1:
            raise InputError(
                f"lines of {self.width} px for a bundle with a model per column of a web of {self.geometry.tile_px} px; "
                "expected lines of that width"
            )
        self._batch, self._tiles = min(self.batch or tiles, tiles), tiles
        height, window_width = self.geometry.window
        require(
            height * (tiles * window_width * manifest.input.channels),
            f"a strip of {self.geometry.strip_lines} lines in {tiles} tiles of {self.geometry.tile_px} px",
            "ask for fewer lines or narrower tiles",
        )
        if self.backend == "auto":
            self.backend = fastest_engine(self.bundle, threads=self.threads, batch=self._batch)
        try:
            self._scorer = self._open()
        except FlawlineError as error:
            if not (self.fallback and is_on_gpu(self.backend)):
                raise
            self._fall_back(error)
        self._conditioner = Conditioner(web)
        self._strips = StripBuffer(
            self.geometry,
            self.width,
            manifest.input.channels,
            self._conditioner if self._conditioner.is_needed else None,
        )
        margin_px = 0 if web.edges is None else web.edges.margin_px
        self._stitcher = Stitcher(self.geometry, self.width, manifest.map.sigma, margin_px)
        self._maps = np.empty((tiles, *self.geometry.map_size), np.float32)

    @property
    def next_line(self) -> int | None:
        """Number of the line that would go on without a gap; None while there is none to follow."""
        return self._strips.next_line

    @property
    def crossed_lines(self) -> int:
        """Lines whose edges crossed each other, so that all of each was inspected."""
        return self._conditioner.crossed_lines

    def add(self, lines: Lines, first_line: int) -> Iterator[InspectedStrip]:
        """Takes lines.

        Args:
            lines: uint8 (n, width[, 3]).
            first_line: Number of the first on the web. Lines that are missing before it end the stretch.

        Yields:
            Every strip whose lines and context are complete with them.
        """
        if self.next_line not in (None, first_line):
            yield from self.cut()
        for strip in self._strips.add(lines, first_line):
            yield self._inspect(strip)

    def cut(self) -> Iterator[InspectedStrip]:
        """Ends the stretch: a gap, or the end of the web. Yields the strips whose context will not come any more."""
        for strip in self._strips.cut():
            yield self._inspect(strip)

    def inspect_piece(self, piece: Lines) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Inspects a piece of web with a beginning and an end of its own.

        Args:
            piece: uint8 (height, width[, 3]).

        Returns:
            The anomaly map, float32 (rows, w), 0 where masked, and the mask of what is web.

        Raises:
            FlawlineError: A strip of it cannot be scored.
        """
        for _ in self.cut():
            pass
        shape = (-(-len(piece) // self.geometry.map_stride), self.geometry.map_width(self.width))
        values, mask = np.zeros(shape, np.float32), np.zeros(shape, np.bool_)
        for part in (self.add(piece, 0), self.cut()):
            for strip in part:
                if strip.error is not None:
                    raise strip.error
                rows = slice(strip.rows.first_row, strip.rows.first_row + len(strip.rows.values))
                values[rows], mask[rows] = strip.rows.values, strip.rows.mask
        return values, mask

    def close(self) -> None:
        """Frees the engine; closing again does nothing."""
        self._scorer.close()

    def __enter__(self) -> "WebInspector":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def warm_up(self) -> None:
        """Scores black windows, so that the first strip is not slower than the others."""
        black = [np.zeros_like(window) for window in self._windows(self._strips.window)]
        for _ in range(WARMUP_STRIPS):
            self._run(black[: self._batch])

    def _windows(self, window: Lines) -> list[Lines]:
        tile, width = self.geometry.tile_px, self.geometry.window[1]
        return [window[:, x : x + width] for x in range(0, self._tiles * tile, tile)]

    def _inspect(self, strip: Strip) -> InspectedStrip:
        start_ns = time.monotonic_ns()
        timings: dict[str, int] = {}
        error: FlawlineError | None = None
        try:
            self._score(self._windows(strip.window), timings)
        except FlawlineError as failure:
            error = failure
        start = time.perf_counter_ns()
        rows = self._stitcher.add(strip, self._maps if error is None else None)
        timings["stitch"] = time.perf_counter_ns() - start
        present = slice(strip.start - strip.first_line, strip.end - strip.first_line)
        return InspectedStrip(
            first_line=strip.first_line,
            end=strip.end,
            rows=rows,
            left=strip.left[present],
            right=strip.right[present],
            window=strip.window,
            start_ns=start_ns,
            timings_ns=timings,
            error=error,
        )

    def _score(self, windows: list[Lines], timings: dict[str, int]) -> None:
        for first in range(0, self._tiles, self._batch):
            maps = self._run(windows[first : first + self._batch])
            self._maps[first : first + len(maps)] = maps
            for stage, time_ns in self._scorer.timings_ns.items():
                timings[stage] = timings.get(stage, 0) + time_ns

    def _run(self, windows: list[Lines]) -> npt.NDArray[np.float32]:
        try:
            return self._scorer.batch(windows)[1]
        except DeviceError as error:
            self._scorer.close()
            if not self.fallback:
                raise
            self._fall_back(error)
        return self._scorer.batch(windows)[1]

    def _open(self) -> AnyScorer:
        bundle = in_geometry(self.bundle, self.geometry)
        return open_scorer(bundle, self.backend, threads=self.threads, batch=self._batch)

    def _fall_back(self, error: FlawlineError) -> None:
        self.fallback_reason = str(error)
        self.backend = preferred_engine(self.bundle.manifest.network.precision)
        self._scorer = self._open()
