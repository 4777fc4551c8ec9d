"""The manifest of a bundle before it is calibrated: what it says, and what it will take."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from flawline.calibration.gaussian import assignment
from flawline.calibration.good_images import GoodImages
from flawline.calibration.good_web import GoodWeb
from flawline.calibration.memory import calibration_bytes
from flawline.calibration.statistics import FACTOR_DTYPES, StatisticsOptions
from flawline.calibration.web_pieces import Piece, fingerprint
from flawline.export import factor_parity
from flawline.export.features import Exported
from flawline.export.fitting import Images
from flawline.export.options import FitOptions
from flawline.runtime import memory
from flawline.runtime.bundle import manifest as facts
from flawline.runtime.errors import InputError

_GOLDEN_TOLERANCE = 5e-3
# Positive and finite, as the format demands.
_NO_THRESHOLD = float(np.finfo(np.float32).max)


def draft(good: GoodImages, images: Images, exported: Exported, options: FitOptions) -> facts.PadimManifest:
    """Writes down all that is known before the first image is scored.

    Args:
        good: All good images.
        images: Those of them that are fitted and held out.
        exported: The feature graph.
        options: How the bundle is to be.

    Returns:
        A manifest without parity, whose threshold no score reaches.
    """
    paths = [path for path in images.fitted if isinstance(path, Path)]
    return _draft(
        exported,
        options,
        channels=good.channels,
        interpolation=good.interpolation(exported.height, exported.width),
        source=good.size or (None, None),
        counts=(len(images.fitted), len(images.held_out)),
        sources_sha256=good.fingerprint(paths),
        covered_px=exported.height,
        columns=None,
        web=None,
    )


def draft_web(
    good: GoodWeb, fitted: Sequence[Piece], held_out: Sequence[Piece], exported: Exported, options: FitOptions
) -> facts.PadimManifest:
    """The same of a web, whose strips count as images.

    Args:
        good: The good web.
        fitted: Pieces of it that are fitted.
        held_out: And those held out.
        exported: The feature graph.
        options: How the bundle is to be.
    """
    geometry, model = good.geometry, options.statistics
    if model.lane_px is not None and not geometry.map_stride <= model.lane_px < fitted[0].width:
        raise InputError(
            f"lanes of {model.lane_px} px; expected {geometry.map_stride}, a column of the map, to {fitted[0].width - 1}, less than "
            "the web"
        )
    return _draft(
        exported,
        options,
        channels=3 if fitted[0].channels == 3 else 1,
        interpolation="linear",
        source=(geometry.strip_lines, fitted[0].width),
        counts=(good.strips(fitted), good.strips(held_out)),
        sources_sha256=fingerprint(fitted),
        covered_px=geometry.strip_lines + 2 * geometry.ring,
        columns=geometry.lanes(model.lane_px),
        web=good.facts,
    )


def _draft(
    exported: Exported,
    options: FitOptions,
    *,
    channels: Literal[1, 3],
    interpolation: Literal["area", "linear"],
    source: tuple[int | None, int | None],
    counts: tuple[int, int],
    sources_sha256: str,
    covered_px: int,
    columns: npt.NDArray[np.int32] | None,
    web: facts.Web | None,
) -> facts.PadimManifest:
    height, width = exported.map_size
    model = options.statistics
    return facts.PadimManifest(
        input=facts.Input(
            height=exported.height,
            width=exported.width,
            channels=channels,
            layout=options.layout,
            interpolation=interpolation,
            source_height=source[0],
            source_width=source[1],
        ),
        network=exported.network,
        projection=exported.projection,
        map=facts.Map(
            height=height,
            width=width,
            upsampling=options.upsampling,
            sigma=options.smoothing_px * height / covered_px,
        ),
        gaussian=facts.Gaussian(
            tie=model.tie,
            lane_px=model.lane_px,
            count=int(assignment(model.tie, height, width, columns).max()) + 1,
            components=model.components,
            epsilon=model.epsilon,
            epsilon_relative=model.epsilon_relative,
            shrinkage=model.shrinkage,
            factors=model.factors,
            block_rows=8,
        ),
        threshold=facts.Threshold(
            false_reject_rate=options.false_reject_rate, score=_NO_THRESHOLD, calibration_images=counts[1]
        ),
        fit=facts.Fit(
            images=counts[0],
            calibration_images=counts[1],
            group_by=options.group_by,
            seed=options.seed,
            sources_sha256=sources_sha256,
        ),
        web=web,
        parity=None,
        golden=facts.GoldenFacts(relative_tolerance=_GOLDEN_TOLERANCE),
    )


def require_memory(
    manifest: facts.PadimManifest, exported: Exported, images: int, batch: int, model: StatisticsOptions
) -> None:
    """Refuses a fit that would not go into memory.

    Args:
        manifest: What is to be fitted.
        exported: The feature graph.
        images: How many images are fitted.
        batch: How many of them at once.
        model: How they are modelled.

    Raises:
        ResourceError: Too little memory is available.
    """
    embedding_values = manifest.positions * manifest.projection.dimension
    memory.require(
        calibration_bytes(
            gaussians=manifest.gaussian.count,
            components=model.components,
            dimension=manifest.projection.dimension,
            factors=FACTOR_DTYPES[model.factors],
            sample_values=images * embedding_values if model.needs_sample else 0,
            compared_values=min(manifest.fit.calibration_images, factor_parity.IMAGES) * embedding_values,
            network_bytes=len(exported.features),
            batch_bytes=batch * embedding_values * 4,
        ),
        f"fitting {manifest.gaussian.count} Gaussians of {manifest.projection.dimension} dimensions",
        "lower --dim or --image-size, raise --map-stride, or use --tie column or global",
    )


def describe(manifest: facts.PadimManifest) -> str:
    """One line on what a manifest's detector is made of."""
    network, projection, gaussian, map_ = manifest.network, manifest.projection, manifest.gaussian, manifest.map
    weights = "RANDOM weights, for timing only" if network.weights.random else f"weights {network.weights.origin}"
    kind = "absolute" if not gaussian.epsilon_relative else "of the mean feature variance"
    return (
        f"{network.name} ({weights}) at {manifest.input.width} x {manifest.input.height} px; "
        f"{projection.kind} projection {projection.input_dimension} -> {projection.dimension}; "
        f"{map_.width} x {map_.height} map, Gaussians tied by {gaussian.tie}, epsilon {gaussian.epsilon:g} {kind}, "
        f"smoothing {map_.sigma:g} map px"
    )
