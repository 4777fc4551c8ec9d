"""Adds a precision to a bundle: the same good images, split as they were, through the network in that precision."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec
import numpy as np
import numpy.typing as npt

from flawline.calibration.gaussian import Tie
from flawline.calibration.good_images import GoodImages, check_images
from flawline.calibration.good_web import GoodWeb
from flawline.calibration.shrinkage import Estimator
from flawline.calibration.split import draw, split
from flawline.calibration.statistics import FactorType, StatisticsOptions
from flawline.calibration.web_pieces import Piece, fingerprint, split_pieces
from flawline.calibration.web_statistics import sampled_windows
from flawline.calibration.web_threshold import WebModel
from flawline.calibration.woodbury import Form
from flawline.export import fidelity
from flawline.export.converting import running
from flawline.export.draft import require_memory
from flawline.export.features import Exported
from flawline.export.fitting import BATCH, Images, Say, held_out_scores, warn_of_few
from flawline.export.labelled import Labelled
from flawline.export.sizes import features_of_any_size, features_of_one_size
from flawline.export.support import require_support
from flawline.export.variants import FloatDetector, fit_variant, labelled_auroc
from flawline.runtime import bundle as bundles
from flawline.runtime.bundle import manifest as facts
from flawline.runtime.engines import open_cpu_scorer
from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule
from flawline.runtime.precisions import ENGINES, Precision
from flawline.runtime.web.geometry import Geometry

if TYPE_CHECKING:
    import threadpoolctl
else:
    threadpoolctl = LazyModule("threadpoolctl", "pip install 'flawline[fit]'")

# Largest relative difference of a score to what it was when the bundle was fitted. Two engines differ by 1e-6 in fp32, two
# good images by 1e-2.
_SAME_SCORE = 1e-3


def add_precision(
    path: Path,
    precision: Precision,
    images: Sequence[Path] | Sequence[Piece],
    out: Path,
    *,
    factors: FactorType | None = None,
    form: Form | None = None,
    labelled: Labelled | None = None,
    skip_bad: bool = False,
    threads: int,
    say: Say = lambda line: None,
) -> bundles.Bundle:
    """Writes a bundle that holds a further precision; the one it was made from stays as it is.

    Args:
        path: Bundle whose own network is in fp32.
        precision: To add.
        images: The good images that the bundle was fitted on; for a web the pieces (`read_pieces`).
        out: Folder to make; must not exist.
        factors: Type of the stored factors; as in the bundle if None.
        form: Of the factors; as in the bundle if None, or what suits them where their type is another.
        labelled: Images to compare AUROC on.
        skip_bad: Whether images that cannot be read are left out, as they may have been when the bundle was fitted.
        threads: Threads that compute.
        say: Takes each line that tells what is being done.

    Returns:
        The new bundle, as it was read back.

    Raises:
        BundleError: The bundle is damaged.
        InputError: It holds the precision, or no float network, or one that the precision does not support; the images are
            not those that it was fitted on.
        EngineError: The engine of the precision refuses the network.
        MissingExtraError: That engine is not installed.
        ParityError: The detector does not score like the float detector.
        ResourceError: Memory or disk would not suffice.
    """
    bundles.require_free(out)
    bundle = bundles.read(path)
    manifest = bundle.padim
    if precision in bundle.precisions:
        raise InputError(f"{path} holds {precision} already; expected one of the others")
    if manifest.network.precision != "fp32":
        raise InputError(
            f"{path} holds no fp32 network to start from, only {', '.join(bundle.precisions)}; fit it again"
        )
    if manifest.web is not None and (labelled is not None or skip_bad):
        raise InputError(f"{path} is for a web; expected neither labelled images nor to leave out any")
    exported = exported_from(bundle)
    require_support(precision, exported, manifest, threads=threads)
    with running(path), threadpoolctl.threadpool_limits(1, user_api="blas"):
        chosen = _chosen(images, manifest, path, skip_bad, say)
        options = _options(manifest, factors, form)
        warn_of_few(manifest, len(chosen.fitted), say)
        sampled = len(chosen.fitted) if chosen.web is None else sampled_windows(manifest, len(chosen.fitted))
        require_memory(manifest, exported, sampled, BATCH, options)
        model = WebModel(manifest, exported.features, bundle.statistics)
        with open_cpu_scorer(bundle, ENGINES["fp32"][0], threads=threads) as scorer:
            held_out = held_out_scores(scorer, model, chosen, "scoring in fp32", threads=threads)
            _require_same_scores(held_out, bundle)
            image_auroc = None if labelled is None else labelled_auroc(scorer, labelled)
        draft = msgspec.structs.replace(
            manifest, gaussian=msgspec.structs.replace(manifest.gaussian, factors=options.factors), parity=None
        )
        scores = fidelity.Scores(held_out, manifest.threshold.score, image_auroc)
        reference = FloatDetector(exported, draft, scores, labelled)
        added = fit_variant(precision, reference, chosen, options, threads=threads, say=say)
    return _write(out, bundle, precision, added.manifest, added.payload)


def exported_from(bundle: bundles.Bundle) -> Exported:
    """The feature graph of a bundle, for one size, without the torch network behind it."""
    manifest = bundle.padim
    sizes = {output.name: (output.height, output.width) for output in manifest.network.outputs}
    sizes[manifest.network.input] = (manifest.input.height, manifest.input.width)
    features = bundle.features
    return Exported(
        features=features if manifest.web is None else features_of_one_size(features, sizes, manifest.input.layout),
        network=manifest.network,
        projection=manifest.projection,
        stored_projection=bundle.statistics.get("projection"),
        height=manifest.input.height,
        width=manifest.input.width,
        map_size=(manifest.map.height, manifest.map.width),
        mean=(),
        std=(),
        module=None,
    )


def _chosen(
    images: Sequence[Path] | Sequence[Piece], manifest: facts.PadimManifest, path: Path, skip_bad: bool, say: Say
) -> Images:
    """The good images as they were split when the bundle was fitted."""
    if manifest.web is not None:
        return _same_web([piece for piece in images if isinstance(piece, Piece)], manifest, path)
    good = check_images([image for image in images if isinstance(image, Path)], skip_bad=skip_bad)
    for line in good.bad:
        say(f"left out: {line}")
    return _same_images(good, manifest, path)


def _same_web(pieces: Sequence[Piece], manifest: facts.PadimManifest, path: Path) -> Images:
    geometry, web = Geometry.of(manifest), manifest.web
    assert web is not None  # or there were no geometry
    good = GoodWeb(pieces, geometry, web)
    others = InputError(f"this is not the good web that {path} was fitted on; expected the same as for `flawline fit`")
    try:
        fitted, held_out = split_pieces(
            pieces,
            geometry.strip_lines,
            false_reject_rate=manifest.threshold.false_reject_rate,
            seed=manifest.fit.seed,
        )
    except InputError as error:
        # It speaks of options of `flawline fit`, which were right for the web of the bundle.
        raise others from error
    if fingerprint(fitted) != manifest.fit.sources_sha256 or good.strips(held_out) != manifest.fit.calibration_images:
        raise others
    return Images(good.windows(fitted), good.windows(held_out), good, held_out)


def _same_images(good: GoodImages, manifest: facts.PadimManifest, path: Path) -> Images:
    expected = manifest.input
    size = (expected.source_height, expected.source_width)
    if good.channels != expected.channels:
        kinds = {1: "grey", 3: "in colour"}
        raise InputError(
            f"the images are {kinds[good.channels]}; {path} was fitted on images {kinds[expected.channels]}"
        )
    if size != (None, None) and good.size != size:
        received = "of several sizes" if good.size is None else f"{good.size[1]} x {good.size[0]} px"
        raise InputError(f"the images are {received}; {path} was fitted on images of {size[1]} x {size[0]} px")
    others = InputError(
        f"these {len(good.paths)} images are not those that {path} was fitted on ({manifest.fit.images}, and "
        f"{manifest.fit.calibration_images} held out); expected the same folder as for `flawline fit`"
    )
    try:
        fitted, held_out = split(
            good.paths,
            false_reject_rate=manifest.threshold.false_reject_rate,
            calibration_images=manifest.fit.calibration_images,
            group_by=manifest.fit.group_by,
            seed=manifest.fit.seed,
        )
    except InputError as error:
        # It speaks of options of `flawline fit`, which were right for the images of the bundle.
        raise others from error
    if manifest.fit.images < len(fitted):
        fitted = draw(fitted, manifest.fit.images, manifest.fit.seed)
    if len(held_out) != manifest.fit.calibration_images or good.fingerprint(fitted) != manifest.fit.sources_sha256:
        raise others
    return Images(fitted, held_out)


def _require_same_scores(scores: npt.NDArray[np.float32], bundle: bundles.Bundle) -> None:
    """Refuses held-out images that are not those of the bundle, which keeps their scores and no hash of them."""
    expected = bundle.statistics["calibration_scores"].astype(np.float64)
    worst = float(np.max(np.abs(np.sort(scores) - expected) / np.maximum(expected, np.finfo(np.float32).tiny)))
    if not worst <= _SAME_SCORE:
        raise InputError(
            f"the {len(scores)} held-out images do not score as those that {bundle.path} was fitted with: largest relative "
            f"difference {worst:.2g}, tolerance {_SAME_SCORE:g}; expected the same folder as for `flawline fit`, on a "
            "machine where `flawline verify` passes"
        )


def _options(manifest: facts.PadimManifest, factors: FactorType | None, form: Form | None) -> StatisticsOptions:
    model = manifest.gaussian
    return StatisticsOptions(
        tie=cast("Tie", model.tie),
        lane_px=model.lane_px,
        components=model.components,
        epsilon=model.epsilon,
        epsilon_relative=model.epsilon_relative,
        shrinkage=cast("Estimator | float | None", model.shrinkage),
        factors=factors or model.factors,
        # Of another type, another form may be the one to take.
        form=form or (model.form if factors in (None, model.factors) else None),
        seed=manifest.fit.seed,
    )


def _write(
    out: Path, bundle: bundles.Bundle, precision: Precision, added: facts.PadimManifest, payload: bundles.Payload
) -> bundles.Bundle:
    own = bundle.padim
    if own.web is not None:
        payload = payload._replace(features=features_of_any_size(payload.features, own.input.layout))
    files = bundles.variant_files(precision)
    variant = facts.PadimVariant(
        features=own.file_names("fp32").features if payload.features == bundle.features else files.features,
        network=added.network,
        gaussian=added.gaussian,
        threshold=added.threshold,
        parity=added.parity,
        fidelity=added.fidelity,
        golden=added.golden,
    )
    held = {name: payload_of(bundle.select(name)) for name in own.variants}
    return bundles.write(
        out,
        msgspec.structs.replace(own, format=facts.Format(), variants={**own.variants, precision: variant}),
        *payload_of(bundle),
        variants={**held, precision: payload},
    )


def payload_of(bundle: bundles.Bundle) -> bundles.Payload:
    """What the files of an open bundle hold, in its precision."""
    return bundles.Payload(bundle.features, bundle.statistics, bundle.golden)
