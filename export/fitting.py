"""One precision of a detector, fitted: statistics from the graph that will run, threshold, proof, golden frames."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from flawline.calibration import conformal
from flawline.calibration.good_web import GoodWeb, Window
from flawline.calibration.statistics import EmbeddingReader, Statistics, StatisticsOptions, collect
from flawline.calibration.web_pieces import Piece
from flawline.calibration.web_statistics import collect_web
from flawline.calibration.web_threshold import WebModel, strip_maxima
from flawline.export import factor_parity, fidelity, parity
from flawline.export.features import Exported
from flawline.runtime import bundle as bundles
from flawline.runtime.bundle import manifest as facts
from flawline.runtime.bundle.contents import gaussian_tensors
from flawline.runtime.extractor import FeatureExtractor
from flawline.runtime.frame_scorer import FrameScorer
from flawline.runtime.images import read_image
from flawline.runtime.precisions import ENGINES
from flawline.runtime.progress import progress
from flawline.runtime.scorer import Scorer

Frame = npt.NDArray[np.uint8]
Say = Callable[[str], object]

BATCH = 4
"""Frames that are fitted at once."""

_GOLDEN_FRAMES = 3
_GOLDEN_FRAME_BYTES = 1 << 20
_PARITY_IMAGES = 4


Picture = Path | Window
"""An image file, or a window of a web."""

T = TypeVar("T")


class Images(NamedTuple):
    """Good images, or windows of good web.

    Attributes:
        fitted: Behind the statistics.
        held_out: Behind the proofs, and behind the threshold unless there are pieces.
        web: Where windows are from; None for images.
        pieces: Of the web, held out: their strips are behind the threshold.
    """

    fitted: Sequence[Picture]
    held_out: Sequence[Picture]
    web: GoodWeb | None = None
    pieces: Sequence[Piece] = ()


class Fitted(NamedTuple):
    """One precision of a detector.

    Attributes:
        manifest: With threshold and parity.
        payload: For the bundle.
        scores: Of the held-out images.
    """

    manifest: facts.PadimManifest
    payload: bundles.Payload
    scores: fidelity.Scores


def fit_detector(
    exported: Exported,
    manifest: facts.PadimManifest,
    images: Images,
    options: StatisticsOptions,
    *,
    threads: int,
    say: Say,
) -> Fitted:
    """Fits one precision of a detector.

    Args:
        exported: The feature graph.
        manifest: What it will say, but for threshold and parity.
        images: Good images.
        options: How they are modelled.
        threads: Threads that compute.
        say: Takes each line that tells what is being done.

    Raises:
        InputError: The images do not suffice, or their features are not finite or do not vary.
        ParityError: Scores, or distances by the packed factors, are not those of the textbook formula.
    """
    statistics = _collect(exported, manifest, images, options, threads)
    model = msgspec.structs.replace(manifest.gaussian, form=statistics.gaussians.form, rank=statistics.gaussians.rank)
    manifest = msgspec.structs.replace(manifest, gaussian=model)
    with Scorer(
        exported.features,
        manifest,
        statistics.gaussians,
        backend=ENGINES[exported.network.precision][0],
        threads=threads,
    ) as scorer:
        web_model = WebModel(manifest, exported.features, gaussian_tensors(statistics.gaussians))
        scores = held_out_scores(scorer, web_model, images, "calibrating", threads=threads)
        checked = evenly(images.held_out, _PARITY_IMAGES)
        report = parity.check(
            scorer,
            parity.Reference(exported, manifest, statistics, threads=threads),
            list(frames(checked)),
            tolerance=parity.TOLERANCES[options.factors],
        )
        say(
            f"scores equal {report['reference']} within {report['relative_error_max']:.1e} (relative), maps within "
            f"{report['map_relative_error_max']:.1e}, on {len(checked)} held-out images"
        )
        golden = golden_frames(scorer, manifest, evenly(images.held_out, _GOLDEN_FRAMES))
    report |= _check_factors(exported, manifest, images.held_out, statistics, options, threads)
    say(
        f"distances by {options.factors} factors equal a float64 solve with the covariances within "
        f"{report['factor_error_p99']:.1e} (99 % of them) to {report['factor_error_max']:.1e} (all), on "
        f"{report['factor_images']} held-out images"
    )
    threshold = conformal.threshold(scores, manifest.threshold.false_reject_rate)
    return Fitted(
        manifest=msgspec.structs.replace(
            manifest, threshold=msgspec.structs.replace(manifest.threshold, score=threshold), parity=report
        ),
        payload=bundles.Payload(exported.features, _tensors(statistics, scores, exported), golden),
        scores=fidelity.Scores(scores, threshold),
    )


def warn_of_few(manifest: facts.PadimManifest, images: int, say: Say) -> None:
    """Says so if there are too few images for what epsilon adds not to matter."""
    dimension = manifest.projection.dimension
    if manifest.gaussian.tie == "position" and images <= dimension:
        say(
            f"{images} images for {dimension} dimensions: in most directions only epsilon says what is normal; more images or a "
            "smaller --dim would say more"
        )


def held_out_scores(
    scorer: FrameScorer, model: WebModel, images: Images, label: str, *, threads: int
) -> npt.NDArray[np.float32]:
    """Scores behind a threshold: of the held-out images, or of the strips of held-out web.

    Args:
        scorer: The detector, of images or windows.
        model: The same detector.
        images: Good images.
        label: Of the progress bar.
        threads: Threads that compute.
    """
    if images.web is None:
        return score(scorer, images.held_out, label)
    return strip_maxima(model, images.web, images.pieces, label, threads=threads)


def score(scorer: FrameScorer, paths: Sequence[Picture], label: str) -> npt.NDArray[np.float32]:
    """Scores of images, float32 (n,), with a progress bar of that label."""
    return np.array([scorer(frame)[0] for frame in progress(frames(paths), total=len(paths), label=label)], np.float32)


def frames(paths: Iterable[Picture]) -> Iterator[Frame]:
    """The images, one after the other."""
    return (picture.read() if isinstance(picture, Window) else read_image(picture) for picture in paths)


def evenly(paths: Sequence[T], count: int) -> list[T]:
    """At most so many of the paths, spread evenly."""
    return [paths[index] for index in sorted({round(i) for i in np.linspace(0, len(paths) - 1, count)})]


def extractor_of(
    exported: Exported, manifest: facts.PadimManifest, *, threads: int, batch: int = 1
) -> FeatureExtractor:
    """The feature graph in the engine through which its statistics are collected."""
    return FeatureExtractor(
        exported.features,
        manifest.input,
        exported.network,
        manifest.output_channels,
        backend=ENGINES[exported.network.precision][0],
        threads=threads,
        batch=batch,
    )


def _collect(
    exported: Exported, manifest: facts.PadimManifest, images: Images, options: StatisticsOptions, threads: int
) -> Statistics:
    fitted, dimension = images.fitted, manifest.projection.dimension
    with _reader(exported, manifest, threads) as reader:
        if images.web is not None:
            windows = [picture for picture in fitted if isinstance(picture, Window)]
            watch = progress(windows, label="fitting", unit="window")
            return collect_web(reader, windows, exported.map_size, dimension, options, watch)
        good = progress(frames(fitted), total=len(fitted), label="fitting")
        return collect(reader, good, len(fitted), exported.map_size, dimension, options)


def _check_factors(
    exported: Exported,
    manifest: facts.PadimManifest,
    held_out: Sequence[Picture],
    statistics: Statistics,
    options: StatisticsOptions,
    threads: int,
) -> facts.Report:
    chosen = evenly(held_out, factor_parity.IMAGES)
    with _reader(exported, manifest, threads) as reader:
        values = np.concatenate(list(reader.batches(frames(chosen))))
    return factor_parity.check(values, statistics, options.factors, threads=threads)


@contextmanager
def _reader(exported: Exported, manifest: facts.PadimManifest, threads: int) -> Iterator[EmbeddingReader]:
    with extractor_of(exported, manifest, threads=threads, batch=BATCH) as extractor:
        yield EmbeddingReader(extractor, exported.map_size, manifest.map.upsampling, threads=threads)


def golden_frames(scorer: FrameScorer, manifest: facts.Manifest, paths: Sequence[Picture]) -> list[bundles.Golden]:
    """The images with their scores and maps, or the middles of large ones."""
    golden = []
    for frame in frames(paths):
        if frame.nbytes > _GOLDEN_FRAME_BYTES:
            # The middle, so that a bundle for large frames stays small; any frame is as good as another here.
            height, width = manifest.input.height, manifest.input.width
            top, left = max(0, (frame.shape[0] - height) // 2), max(0, (frame.shape[1] - width) // 2)
            frame = np.ascontiguousarray(frame[top : top + height, left : left + width])
        golden_score, anomaly_map = scorer(frame)
        golden.append(bundles.Golden(frame=frame, score=golden_score, map=anomaly_map))
    return golden


def _tensors(
    statistics: Statistics, scores: npt.NDArray[np.float32], exported: Exported
) -> dict[str, npt.NDArray[Any]]:
    tensors = gaussian_tensors(statistics.gaussians) | {"calibration_scores": np.sort(scores)}
    if exported.stored_projection is not None:
        tensors["projection"] = exported.stored_projection
    return tensors
