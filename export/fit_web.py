"""Good web to a bundle: the halo of the network, windows of the web, and then what is done with pictures as well."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from flawline.calibration.good_web import GoodWeb, brightness
from flawline.calibration.web_flat_field import KnownFlatField, read_flat_field
from flawline.calibration.web_pieces import Piece, read_pieces, split_pieces
from flawline.calibration.web_statistics import require_for_web, sampled_windows
from flawline.export.converting import running
from flawline.export.draft import describe, draft_web, require_memory
from flawline.export.feature_graph import FeatureGraph, cut
from flawline.export.features import Exported, export_features, open_backbone, projected_dimension
from flawline.export.fitting import BATCH, Fitted, Images, Say, fit_detector
from flawline.export.options import FitOptions, WebOptions
from flawline.export.receptive_field import receptive_fields
from flawline.export.sizes import features_of_any_size, open_size
from flawline.export.support import require_support
from flawline.export.variants import FloatDetector, fit_variant
from flawline.runtime import bundle as bundles
from flawline.runtime.bundle import manifest as facts
from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule
from flawline.runtime.web.geometry import Geometry

if TYPE_CHECKING:
    import threadpoolctl
else:
    threadpoolctl = LazyModule("threadpoolctl", "pip install 'flawline[fit]'")

_CONTEXTS = 4
"""Width of a tile in contexts where none is given: half as much again then goes through the network."""

_MUCH_CONTEXT = 8
"""Times that a pixel goes through the network, from which on it is said."""


def fit_web_bundle(
    good: str, out: Path, options: FitOptions, web: WebOptions, say: Say = lambda line: None
) -> bundles.Bundle:
    """Fits a detector for an endless web and writes its bundle.

    Args:
        good: Folder of pieces of good web, or the spec of a source.
        out: Folder to make; must not exist.
        options: How the detector is to be.
        web: How the web is cut up.
        say: Takes each line that tells what is being done.

    Returns:
        The bundle, as it was read back.

    Raises:
        InputError: Web or options are not what they must be, or the network is not fully convolutional.
        ResourceError: Memory or disk would not suffice.
        ParityError: The detector does not score like its reference.
    """
    bundles.require_free(out)
    tie = options.statistics.tie
    require_for_web(options.statistics)
    flat_field = read_flat_field(web.flat_field)
    backbone = open_backbone(
        options.backbone,
        layers=options.layers,
        weights=options.weights,
        image_size=options.image_size,
        mean=options.mean,
        std=options.std,
        seed=options.seed,
    )
    projected_dimension(backbone, options.projection, options.dimension)
    backbone = backbone._replace(binning=web.binning)
    map_stride = options.map_stride or web.binning * (backbone.map_stride or min(backbone.graph.strides))
    geometry = web_geometry(backbone.graph, map_stride, web)
    pieces = read_pieces(good, flat_field, say)
    whole = _up(pieces[0].width, geometry.stride)
    if tie == "column" or (web.tile_px is None and geometry.tile_px > whole):
        geometry = replace(geometry, tile_px=whole)
    say(
        f"the network sees {geometry.halo - geometry.ring} px around a position: strips of {geometry.strip_lines} lines and tiles "
        f"of {geometry.tile_px} px, each with {geometry.halo} px of context"
    )
    times = float(np.prod(geometry.window)) / (geometry.strip_lines * geometry.tile_px)
    if times > _MUCH_CONTEXT:
        say(
            f"with its context the web goes through the network {times:.0f} times: wider tiles (--tile) or higher strips "
            "(--strip-lines) are faster"
        )
    fitted, held_out = split_pieces(
        pieces, geometry.strip_lines, false_reject_rate=options.false_reject_rate, seed=options.seed
    )
    good_web = GoodWeb(pieces, geometry, _facts(geometry, web, flat_field, fitted))
    images = Images(good_web.windows(fitted), good_web.windows(held_out), good_web, held_out)
    say(
        f"{good_web.strips(fitted)} strips of good web to fit in {len(images.fitted)} windows, {good_web.strips(held_out)} strips "
        f"held out for a threshold that rejects at most {options.false_reject_rate:.1%} of good strips"
    )
    height, width = (side // web.binning for side in geometry.window)
    exported = export_features(
        backbone._replace(graph=at_size(backbone.graph, height, width)),
        channels=pieces[0].channels,
        layout=options.layout,
        projection=options.projection,
        dimension=options.dimension,
        map_stride=map_stride,
        seed=options.seed,
        crop=geometry.halo - geometry.ring,
    )
    manifest = draft_web(good_web, fitted, held_out, exported, options)
    say(describe(manifest))
    require_memory(manifest, exported, sampled_windows(manifest, len(images.fitted)), BATCH, options.statistics)
    if options.precision != "fp32":
        require_support(options.precision, exported, manifest, threads=options.threads)
    # See `fit_bundle`.
    with running(options.backbone), threadpoolctl.threadpool_limits(1, user_api="blas"):
        result = _fit(options, exported, manifest, images, say)
    payload = result.payload._replace(features=features_of_any_size(result.payload.features, options.layout))
    return bundles.write(out, result.manifest, *payload)


def _fit(options: FitOptions, exported: Exported, manifest: facts.PadimManifest, images: Images, say: Say) -> Fitted:
    fitted = fit_detector(exported, manifest, images, options.statistics, threads=options.threads, say=say)
    if options.precision == "fp32":
        return fitted
    reference = FloatDetector(exported, fitted.manifest, fitted.scores)
    return fit_variant(options.precision, reference, images, options.statistics, threads=options.threads, say=say)


def web_geometry(graph: FeatureGraph, map_stride: int, web: WebOptions) -> Geometry:
    """Strips, tiles and the context that a network needs around them.

    Args:
        graph: The network.
        map_stride: Pixels of the web per position of the map.
        web: Height of strips and width of tiles, which are rounded up to the network's stride, and its binning.

    Raises:
        InputError: The network is not fully convolutional, or the map's stride does not divide the network's.
    """
    binning = web.binning
    fields = receptive_fields(graph.model, graph.input, graph.layers)
    stride = max(field.stride for field in fields) * binning
    if stride % map_stride:
        raise InputError(f"a map stride of {map_stride} px; expected a divisor of {stride}, the network's total stride")
    ring = stride if len({max(field.stride * binning, map_stride) for field in fields}) > 1 else 0
    halo = _up(max(1, *(field.radius * binning for field in fields)), stride) + ring
    return Geometry(
        strip_lines=_up(web.strip_lines, stride),
        tile_px=_CONTEXTS * halo if web.tile_px is None else _up(web.tile_px, stride),
        halo=halo,
        ring=ring,
        stride=stride,
        map_stride=map_stride,
    )


def _facts(
    geometry: Geometry, web: WebOptions, flat_field: KnownFlatField | None, pieces: Sequence[Piece]
) -> facts.Web:
    fact = facts.Web(
        halo=geometry.halo,
        ring=geometry.ring,
        pixel_mm=web.pixel_mm,
        line_mm=web.line_mm,
        binning=web.binning,
        edges=None if web.margin_px is None else facts.Edges(margin_px=web.margin_px),
        flat_field_sha256=msgspec.UNSET if flat_field is None else flat_field.sha256,
    )
    if web.shading_px is None:
        return fact
    shading = facts.Shading(target=brightness(pieces, fact), width_px=web.shading_px)
    return msgspec.structs.replace(fact, shading=shading)


def at_size(graph: FeatureGraph, height: int, width: int) -> FeatureGraph:
    """The network for images of another size."""
    spatial = dict.fromkeys((graph.input, *graph.layers), (2, 3))
    resized = cut(open_size(graph.model, spatial), graph.layers, height, width, origin="the network")
    return replace(resized, sha256=graph.sha256)


def _up(value: int, step: int) -> int:
    return int(np.ceil(value / step)) * step
