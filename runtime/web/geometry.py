"""Strips, tiles and windows of a web, in pixels and in positions of its anomaly map."""

from dataclasses import dataclass, replace

import msgspec
import numpy as np
import numpy.typing as npt

from flawline.runtime.bundle import Bundle
from flawline.runtime.bundle.manifest import PadimManifest
from flawline.runtime.errors import InputError


@dataclass(frozen=True)
class Geometry:
    """How the web is cut up for the network.

    All lengths are multiples of `stride`, and so is the place of every strip and tile: elsewhere the network would sample
    the web at other points, and give other scores.

    Attributes:
        strip_lines: Height of a strip in lines.
        tile_px: Width of a tile.
        halo: Pixels of context on each side of a tile.
        ring: Pixels around a tile that the network's maps cover.
        stride: Total stride of the network, pixels.
        map_stride: Pixels per position of the anomaly map; divides the total stride.
    """

    strip_lines: int
    tile_px: int
    halo: int
    ring: int
    stride: int
    map_stride: int

    @classmethod
    def of(cls, manifest: PadimManifest) -> "Geometry":
        """The geometry in which a bundle was fitted.

        Raises:
            InputError: The bundle is one for pictures.
        """
        web = manifest.web
        if web is None:
            raise InputError("the bundle is one for pictures; expected one that `flawline fit --web` made")
        tile_height = manifest.input.height - 2 * web.halo
        return cls(
            strip_lines=tile_height,
            tile_px=manifest.input.width - 2 * web.halo,
            halo=web.halo,
            ring=web.ring,
            stride=manifest.network.total_stride,
            map_stride=(tile_height + 2 * web.ring) // manifest.map.height,
        )

    def resized(self, strip_lines: int | None = None, tile_px: int | None = None) -> "Geometry":
        """The same with strips of another height or tiles of another width.

        Raises:
            InputError: One of them is no positive multiple of the total stride.
        """
        for name, value in (("strips", strip_lines), ("tiles", tile_px)):
            if value is not None and (value < 1 or value % self.stride):
                raise InputError(f"{name} of {value} px; expected a multiple of {self.stride}, the network's stride")
        return replace(self, strip_lines=strip_lines or self.strip_lines, tile_px=tile_px or self.tile_px)

    @property
    def window(self) -> tuple[int, int]:
        """Height and width of what the network sees, pixels."""
        return self.strip_lines + 2 * self.halo, self.tile_px + 2 * self.halo

    @property
    def map_size(self) -> tuple[int, int]:
        """Height and width of the map of a window: tile and ring, in positions."""
        return (
            (self.strip_lines + 2 * self.ring) // self.map_stride,
            (self.tile_px + 2 * self.ring) // self.map_stride,
        )

    @property
    def core(self) -> tuple[slice, slice]:
        """Where the tile lies in the map of its window."""
        ring, (height, width) = self.ring // self.map_stride, self.map_size
        return slice(ring, height - ring), slice(ring, width - ring)

    @property
    def strip_rows(self) -> int:
        """Rows of the anomaly map per strip."""
        return self.strip_lines // self.map_stride

    def lanes(self, lane_px: int | None) -> npt.NDArray[np.int32]:
        """Numbers the models of a web with a model per column, or per lane of some pixels.

        A column belongs to the lane in which it begins; the ring goes with the outermost ones.

        Args:
            lane_px: Width of a lane, at least `map_stride`; None for a model of each column's own, the ring's included.

        Returns:
            int32 (w,), the model of each column of a window's map.
        """
        columns = np.arange(self.map_size[1], dtype=np.int32)
        if lane_px is None:
            return columns
        first_px = np.clip(columns * self.map_stride - self.ring, 0, self.tile_px - self.map_stride)
        return np.asarray(first_px // min(lane_px, self.tile_px), np.int32)

    def tiles(self, width: int) -> int:
        """Tiles side by side that cover a web of so many pixels."""
        return -(-width // self.tile_px)

    def map_width(self, width: int) -> int:
        """Positions of the anomaly map across a web of so many pixels."""
        return -(-width // self.map_stride)


def in_geometry(bundle: Bundle, geometry: Geometry) -> Bundle:
    """The bundle as one for windows of another size, whose maps are plain distances: the web is smoothed whole.

    Args:
        bundle: One for a web.
        geometry: Of the windows; that of the bundle or `Geometry.resized` from it.

    Raises:
        InputError: There is a Gaussian per column of the web, and tiles are not as wide as the web that was fitted.
    """
    manifest, fitted = bundle.padim, Geometry.of(bundle.padim)
    is_by_column = manifest.gaussian.tie == "column"
    if is_by_column and geometry.tile_px != fitted.tile_px:
        raise InputError(
            f"tiles of {geometry.tile_px} px for a bundle with a model per column of {fitted.tile_px} px; expected that width"
        )
    height, width = geometry.map_size
    models = geometry.lanes(manifest.gaussian.lane_px) if is_by_column else np.zeros(width, np.int32)
    rows, columns = manifest.map.height, manifest.map.width
    outputs = [
        msgspec.structs.replace(output, height=output.height * height // rows, width=output.width * width // columns)
        for output in manifest.network.outputs
    ]
    return replace(
        bundle,
        manifest=msgspec.structs.replace(
            manifest,
            input=msgspec.structs.replace(manifest.input, height=geometry.window[0], width=geometry.window[1]),
            network=msgspec.structs.replace(manifest.network, outputs=outputs),
            map=msgspec.structs.replace(manifest.map, height=height, width=width, sigma=0.0),
        ),
        statistics={**bundle.statistics, "assignment": np.tile(models, height)},
    )
