"""Features of whole strips at full depth, once: every projection of them follows without the network."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from flawline.benchmarks.web.aitex import FIT_GOOD, Roll
from flawline.calibration.good_web import GoodWeb, brightness
from flawline.calibration.statistics import EmbeddingReader
from flawline.calibration.web_pieces import Piece
from flawline.export.calibrated import calibrate
from flawline.export.features import Backbone, Exported, export_features
from flawline.export.fit_web import at_size, web_geometry
from flawline.export.options import WebOptions
from flawline.export.quantise import quantise
from flawline.runtime.bundle import Input
from flawline.runtime.bundle import manifest as facts
from flawline.runtime.errors import InputError
from flawline.runtime.extractor import FeatureExtractor
from flawline.runtime.extras import LazyModule
from flawline.runtime.images import read_image
from flawline.runtime.precisions import ENGINES
from flawline.runtime.progress import progress
from flawline.runtime.web.geometry import Geometry
from flawline.runtime.web.stitching import cells_inside

if TYPE_CHECKING:
    import cv2
else:
    cv2 = LazyModule("cv2", "pip install opencv-python-headless")

_CALIBRATION_STRIPS = 8


@dataclass(frozen=True)
class Conditions:
    """How strips reach the network.

    Attributes:
        shrink: How many times smaller than the camera saw them.
        shading_px: What changes over more pixels than these is taken out; None for nothing.
        precision: Of the network.
    """

    shrink: int = 1
    shading_px: int | None = None
    precision: Literal["fp32", "int8"] = "fp32"

    def __str__(self) -> str:
        """In words."""
        size = "full resolution" if self.shrink == 1 else f"1/{self.shrink} of the resolution"
        shading = "" if self.shading_px is None else f", shading out over {self.shading_px} px"
        return size + shading + ("" if self.precision == "fp32" else f", {self.precision} network")


@dataclass(frozen=True, eq=False)
class StripFeatures:
    """A strip as the network sees it.

    Attributes:
        path: float16 (P, D), an embedding at each of the P positions of its map.
        left: float32 (lines,), left edge of the web, pixels of the network's input.
        right: float32 (lines,), right edge likewise.
    """

    path: Path
    left: npt.NDArray[np.float32]
    right: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class RollFeatures:
    """The strips of a roll under one set of conditions.

    Attributes:
        geometry: Whole strips, in pixels of the network's input.
        width: Of a line, likewise.
        channels: Of each layer; D in all.
        strips: In the order of the roll.
    """

    geometry: Geometry
    width: int
    channels: tuple[int, ...]
    strips: tuple[StripFeatures, ...]

    def inside(self, strip: int, margin_px: int) -> npt.NDArray[np.bool_]:
        """What of a strip's map is web, so many pixels inside its edges: bool (h, w), P in all."""
        one, geometry = self.strips[strip], self.geometry
        cells = cells_inside(one.left, one.right, self.width, geometry.map_stride, margin_px)
        inside = np.zeros((geometry.strip_rows, geometry.tile_px // geometry.map_stride), np.bool_)
        inside[: cells.shape[0], : cells.shape[1]] = cells
        return inside


def collect(
    backbone: Backbone, roll: Roll, conditions: Conditions, folder: Path, *, map_stride: int, threads: int
) -> RollFeatures:
    """Runs the network once over the strips of a roll, each with the context that a stream would give it.

    Args:
        backbone: The network.
        roll: Which strips.
        conditions: How they reach it. Shading is brought to the brightness of the good strips that are fitted, and an
            integer network is calibrated on those.
        folder: For the embeddings: 2 bytes for each of the D channels of a position.
        map_stride: Pixels of the network's input per position.
        threads: Threads of the engine.

    Raises:
        InputError: A strip cannot be read or is of another size, or the network is not fully convolutional.
    """
    pieces = [_piece(strip.path, conditions.shrink) for strip in roll.strips]
    sizes = {(piece.lines, piece.width, piece.channels) for piece in pieces}
    if len(sizes) > 1:
        raise InputError(f"roll {roll.name} has strips of different sizes or modes: {sorted(sizes)}; expected one")
    lines, width, channels = sizes.pop()
    geometry = web_geometry(backbone.graph, map_stride, WebOptions(strip_lines=lines, tile_px=width))
    web = facts.Web(halo=geometry.halo, ring=geometry.ring, edges=facts.Edges(margin_px=0))
    if conditions.shading_px is not None:
        target = brightness(pieces[:FIT_GOOD], web)
        web = msgspec.structs.replace(web, shading=facts.Shading(target=target, width_px=conditions.shading_px))
    good_web = GoodWeb(pieces, geometry, web)
    exported = export_features(
        backbone._replace(graph=at_size(backbone.graph, *geometry.window)),
        channels=1 if channels == 1 else 3,
        projection="none",
        dimension=None,
        map_stride=map_stride,
        seed=0,
        crop=geometry.halo - geometry.ring,
    )
    strips = []
    if conditions.precision == "int8":
        exported = _in_integers(exported, good_web, threads)
    with _reader(exported, channels, threads) as reader:
        for number, piece in enumerate(progress(pieces, label=f"roll {roll.name}", unit="strip")):
            window = good_web.windows([piece])[0]
            (embeddings,) = next(iter(reader.batches([window.read()])))
            core = embeddings.reshape(*geometry.map_size, -1)[geometry.core]
            path = folder / f"{number:04d}.npy"
            np.save(path, core.reshape(-1, core.shape[-1]).astype(np.float16))
            conditioned = good_web.conditioned(piece)
            strips.append(StripFeatures(path, conditioned.left, conditioned.right))
    return RollFeatures(geometry, width, backbone.graph.channels, tuple(strips))


def _piece(path: Path, shrink: int) -> Piece:
    def load() -> npt.NDArray[np.uint8]:
        pixels = read_image(path)
        if shrink == 1:
            return pixels
        size = (pixels.shape[1] // shrink, pixels.shape[0] // shrink)
        return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)

    pixels = load()
    return Piece(path.name, load, len(pixels), pixels.shape[1], 1 if pixels.ndim == 2 else 3, sha256="")


def _in_integers(exported: Exported, web: GoodWeb, threads: int) -> Exported:
    """The network in 8 bits, calibrated on good strips that are fitted."""
    pieces = web.pieces[: FIT_GOOD : -(-FIT_GOOD // _CALIBRATION_STRIPS)]
    shape = (exported.height, exported.width, -1)
    frames = (window.read().reshape(shape) for window in web.windows(pieces))
    calibrated = calibrate(exported.features, frames, len(pieces), threads=threads)
    return exported._replace(
        features=quantise(calibrated, "int8"), network=msgspec.structs.replace(exported.network, precision="int8")
    )


@contextmanager
def _reader(exported: Exported, channels: int, threads: int) -> Iterator[EmbeddingReader]:
    frame = Input(
        height=exported.height, width=exported.width, channels=1 if channels == 1 else 3, interpolation="area"
    )
    with FeatureExtractor(
        exported.features,
        frame,
        exported.network,
        [exported.projection.dimension] * len(exported.network.outputs),
        backend=ENGINES[exported.network.precision][0],
        threads=threads,
    ) as extractor:
        yield EmbeddingReader(extractor, exported.map_size, "bilinear", threads=threads)
