"""The manifest of a bundle before it is calibrated: what it says, and what it will take."""

import numpy as np

from flawline.calibration.gaussian import assignment
from flawline.calibration.good_images import GoodImages
from flawline.calibration.memory import calibration_bytes
from flawline.calibration.statistics import FACTOR_DTYPES, StatisticsOptions
from flawline.export import factor_parity
from flawline.export.features import Exported
from flawline.export.fitting import Images
from flawline.export.options import FitOptions
from flawline.runtime import memory
from flawline.runtime.bundle import manifest as facts

_GOLDEN_TOLERANCE = 5e-3
# Positive and finite, as the format demands.
_NO_THRESHOLD = float(np.finfo(np.float32).max)


def draft(good: GoodImages, images: Images, exported: Exported, options: FitOptions) -> facts.Manifest:
    """Writes down all that is known before the first image is scored.

    Args:
        good: All good images.
        images: Those of them that are fitted and held out.
        exported: The feature graph.
        options: How the bundle is to be.

    Returns:
        A manifest without parity, whose threshold no score reaches.
    """
    shrinks = good.smallest[0] >= exported.height and good.smallest[1] >= exported.width
    height, width = exported.map_size
    model = options.statistics
    source_height, source_width = good.size or (None, None)
    return facts.Manifest(
        detector="padim",
        input=facts.Input(
            height=exported.height,
            width=exported.width,
            channels=good.channels,
            layout=options.layout,
            interpolation="area" if shrinks else "linear",
            source_height=source_height,
            source_width=source_width,
        ),
        network=exported.network,
        projection=exported.projection,
        map=facts.Map(
            height=height,
            width=width,
            upsampling=options.upsampling,
            sigma=options.smoothing_px * height / exported.height,
        ),
        gaussian=facts.Gaussian(
            tie=model.tie,
            count=int(assignment(model.tie, height, width).max()) + 1,
            components=model.components,
            epsilon=model.epsilon,
            epsilon_relative=model.epsilon_relative,
            shrinkage=model.shrinkage,
            factors=model.factors,
            block_rows=8,
        ),
        threshold=facts.Threshold(
            false_reject_rate=options.false_reject_rate, score=_NO_THRESHOLD, calibration_images=len(images.held_out)
        ),
        fit=facts.Fit(
            images=len(images.fitted),
            calibration_images=len(images.held_out),
            group_by=options.group_by,
            seed=options.seed,
            sources_sha256=good.fingerprint(images.fitted),
        ),
        parity=None,
        golden=facts.GoldenFacts(relative_tolerance=_GOLDEN_TOLERANCE),
    )


def require_memory(
    manifest: facts.Manifest, exported: Exported, images: int, batch: int, model: StatisticsOptions
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


def describe(manifest: facts.Manifest) -> str:
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
