"""What every reconstruction detector's fit begins and ends with: the split of the images; thresholds, proof and bundle.

A fit calls `prepare` for images that may be fitted on, makes a `Reconstructor` of them, and hands it to `finish`, which
scores the held-out images through the very file that ships, by every kind of map that the bundle offers.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from flawline.calibration import conformal
from flawline.calibration.good_images import GoodImages, check_images
from flawline.calibration.resized_images import ResizedImages
from flawline.export import reconstruction_parity
from flawline.export.fitting import Say, evenly, frames, golden_frames, score
from flawline.export.frame_graph import INPUT
from flawline.export.reconstruction_options import ReconstructionOptions
from flawline.export.reconstruction_parity import Reference
from flawline.runtime import bundle as bundles
from flawline.runtime.bundle import manifest as facts
from flawline.runtime.bundle.base import score_tensor
from flawline.runtime.reconstruction_scorer import ReconstructionScorer

LAYOUT: Literal["nchw"] = "nchw"
"""Of the graph's input: the planes that the maps compare with a reconstruction."""

BACKEND = "onnxruntime"
"""The engine through which a bundle is calibrated."""

_PRECISION: Literal["fp32"] = "fp32"
_UPSAMPLING: Literal["nearest"] = "nearest"
_ORIGIN = "fitted on the good images"
_GOLDEN_TOLERANCE = 5e-3
_GOLDEN_FRAMES = 3
_PARITY_IMAGES = 4


@dataclass(frozen=True)
class Prepared:
    """Good images, read once, found to be alike, and split.

    Attributes:
        good: All of them.
        fitted: Those that may be fitted on, for whatever the fit needs: components, weights, a choice, early stopping.
        held_out: Those behind the threshold and the proof, which nothing else may see.
    """

    good: GoodImages
    fitted: list[Path]
    held_out: list[Path]

    def resized(self, paths: Sequence[Path], size_px: int) -> ResizedImages:
        """Images as the detector will see them, read when they are needed.

        Args:
            paths: Any images of the same mode.
            size_px: Height and width.
        """
        interpolation = self.good.interpolation(size_px, size_px)
        return ResizedImages(paths, self.good.channels, size_px, size_px, interpolation)


@dataclass(frozen=True, kw_only=True)
class Reconstructor:
    """A detector, fitted and exported, that has seen no held-out image yet.

    Attributes:
        features: The ONNX file: `frame`, uint8 in the layout `LAYOUT`, to `reconstruction`, and to `saliency` if a map of that
            kind is offered.
        kind: Of the detector.
        architecture: "pca", or the name of the autoencoder's network.
        components: Principal components, or values of the bottleneck.
        maps: The kinds of map that the bundle offers, its default first.
        sigma: Of the proximally sensitive error, px of the image.
        chosen: How components and sigma came about.
        fitted_on: The images behind it, for the hash of the sources.
        reference: The same in float64.
        loss: What a network was trained with; None for principal components, as are the epochs.
        epochs: How many were trained.
        best_epoch: The one whose weights were kept, from 1 on.
    """

    features: bytes
    kind: Literal["pca", "autoencoder"]
    architecture: str
    components: int
    maps: Sequence[facts.ReconstructionMapKind]
    sigma: float
    chosen: str
    fitted_on: Sequence[Path]
    reference: Reference
    loss: str | None = None
    epochs: int | None = None
    best_epoch: int | None = None


def prepare(images: Sequence[Path], out: Path, options: ReconstructionOptions, say: Say) -> Prepared:
    """Reads every good image once and splits them as a PaDiM fit does.

    Args:
        images: Good images.
        out: The bundle to make; refused if it exists, before any image is read.
        options: Of the fit.
        say: Takes each line that tells what is being done.

    Raises:
        InputError: The path exists, an image is unreadable or of another mode, or there are too few.
    """
    bundles.require_free(out)
    # Refuses an impossible rate before any image is decoded.
    options.split(images)
    good = check_images(images, skip_bad=options.skip_bad)
    for line in good.bad:
        say(f"left out: {line}")
    fitted, held_out = options.split(good.paths)
    say(
        f"{len(fitted)} good images to fit, {len(held_out)} held out for a threshold that rejects at most "
        f"{options.false_reject_rate:.1%} of good images"
    )
    return Prepared(good, fitted, held_out)


def finish(
    detector: Reconstructor, images: Prepared, out: Path, options: ReconstructionOptions, say: Say
) -> bundles.Bundle:
    """Calibrates a detector on the held-out images, proves it, and writes its bundle.

    Args:
        detector: Fitted and exported.
        images: What `prepare` made of the good images.
        out: The bundle to make.
        options: Of the fit.
        say: Takes each line that tells what is being done.

    Returns:
        The bundle, as it was read back.

    Raises:
        ParityError: Scores or maps of the file are not those of the reference; nothing is written.
        FlawlineError: A score is not finite.
        ResourceError: The disk is full.
    """
    manifest = draft(detector, images, options)
    scores: dict[facts.ReconstructionMapKind, npt.NDArray[np.float32]] = {}
    reports: list[facts.Report] = []
    golden: list[bundles.Golden] = []
    checked = list(frames(evenly(images.held_out, _PARITY_IMAGES)))
    for kind in detector.maps:
        of_kind = manifest.with_map(kind)
        with ReconstructionScorer(detector.features, of_kind, backend=BACKEND, threads=options.threads) as scorer:
            reports.append(reconstruction_parity.check(scorer, detector.reference, of_kind, checked))
            scores[kind] = score(scorer, images.held_out, f"calibrating {kind}")
            golden = golden or golden_frames(scorer, manifest, evenly(images.held_out, _GOLDEN_FRAMES))
        say(
            f"{kind}: scores equal {detector.reference.name} within {reports[-1]['relative_error_max']:.1e} (relative), maps "
            f"within {reports[-1]['map_relative_error_max']:.1e}, on {len(checked)} held-out images"
        )
    return bundles.write(
        out,
        _calibrated(manifest, scores, reconstruction_parity.joined(reports)),
        detector.features,
        {score_tensor(kind): np.sort(of_kind) for kind, of_kind in scores.items()},
        golden,
    )


def draft(detector: Reconstructor, images: Prepared, options: ReconstructionOptions) -> facts.ReconstructionManifest:
    """Writes down all that is known before the first held-out image is scored.

    Args:
        detector: Fitted and exported.
        images: Behind it.
        options: Of the fit.

    Returns:
        A manifest without parity, whose thresholds no score reaches.
    """
    size_px = options.image_size
    none_yet = facts.MapThreshold(score=float(np.finfo(np.float32).max))
    saliency = any(kind in facts.SALIENCIES for kind in detector.maps)
    height, width = images.good.size or (None, None)
    return facts.ReconstructionManifest(
        input=facts.Input(
            height=size_px,
            width=size_px,
            channels=images.good.channels,
            layout=LAYOUT,
            interpolation=images.good.interpolation(size_px, size_px),
            source_height=height,
            source_width=width,
        ),
        network=facts.Network(
            name=detector.architecture,
            layers=["reconstruction"],
            weights=facts.Weights(origin=_ORIGIN, sha256=hashlib.sha256(detector.features).hexdigest(), random=False),
            precision=_PRECISION,
            input=INPUT,
            outputs=[
                facts.Output(name=name, height=size_px, width=size_px)
                for name in ("reconstruction", "saliency")[: 1 + saliency]
            ],
            total_stride=1,
        ),
        map=facts.Map(height=size_px, width=size_px, upsampling=_UPSAMPLING, sigma=detector.sigma),
        threshold=facts.Threshold(
            false_reject_rate=options.false_reject_rate,
            score=none_yet.score,
            calibration_images=len(images.held_out),
        ),
        fit=facts.Fit(
            images=len(detector.fitted_on),
            calibration_images=len(images.held_out),
            group_by=options.group_by,
            seed=options.seed,
            sources_sha256=images.good.fingerprint(detector.fitted_on),
        ),
        parity=None,
        golden=facts.GoldenFacts(relative_tolerance=_GOLDEN_TOLERANCE),
        reconstruction=facts.Reconstruction(
            kind=detector.kind,
            architecture=detector.architecture,
            components=detector.components,
            maps=dict.fromkeys(detector.maps, none_yet),
            map=detector.maps[0],
            normalised=options.normalised,
            loss=detector.loss,
            epochs=detector.epochs,
            best_epoch=detector.best_epoch,
            chosen=detector.chosen,
        ),
    )


def _calibrated(
    manifest: facts.ReconstructionManifest,
    scores: dict[facts.ReconstructionMapKind, npt.NDArray[np.float32]],
    parity: facts.Report,
) -> facts.ReconstructionManifest:
    rate, default = manifest.threshold.false_reject_rate, manifest.reconstruction.map
    maps = {kind: facts.MapThreshold(score=conformal.threshold(of_kind, rate)) for kind, of_kind in scores.items()}
    return msgspec.structs.replace(
        manifest,
        threshold=msgspec.structs.replace(manifest.threshold, score=maps[default].score),
        reconstruction=msgspec.structs.replace(manifest.reconstruction, maps=maps),
        parity=parity,
    )
