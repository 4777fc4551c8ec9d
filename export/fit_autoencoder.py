"""Good images to a bundle of an autoencoder that was trained on them."""

from collections.abc import Sequence
from pathlib import Path

from flawline.calibration.split import group_numbers
from flawline.detectors.autoencoder import Autoencoder, ImageShape
from flawline.detectors.autoencoders import build_autoencoder
from flawline.detectors.checkpoint import require_place
from flawline.detectors.torch_threads import torch_threads
from flawline.detectors.training import TrainingResult, train
from flawline.detectors.training_images import ArrayImages, FileImages
from flawline.detectors.training_memory import training_bytes
from flawline.export.autoencoder import export_autoencoder
from flawline.export.autoencoder_graph import compose_autoencoder
from flawline.export.autoencoder_options import AutoencoderOptions
from flawline.export.autoencoder_reference import reference_of
from flawline.export.fitting import Say
from flawline.export.reconstruction import LAYOUT, Prepared, Reconstructor, finish, prepare
from flawline.runtime import bundle as bundles
from flawline.runtime import memory
from flawline.runtime.bundle.manifest import SALIENCIES

__all__ = ["AutoencoderOptions", "fit_autoencoder_bundle"]

# Images that take up to this share of the memory that training leaves are read once, and not anew in every epoch.
_SHARE_FOR_IMAGES = 0.25


def fit_autoencoder_bundle(
    images: Sequence[Path], out: Path, options: AutoencoderOptions, say: Say = lambda line: None
) -> bundles.Bundle:
    """Trains an autoencoder on good images and writes its bundle.

    The images that are held out for the threshold are no part of the training, nor of the validation that stops it.

    Args:
        images: Good images.
        out: Folder to make; must not exist.
        options: Everything else.
        say: Takes each line that tells what is being done.

    Returns:
        The bundle, as it was read back.

    Raises:
        InputError: Images or options are not what they must be, or the checkpoint is of another training. A checkpoint that
            could not be written is refused before any image is read.
        DivergedError: The loss became NaN or infinite. The checkpoint, if one was asked for, is of the last epoch before.
        ResourceError: Memory or disk would not suffice.
        ParityError: The exported network does not score like its reference.
    """
    if options.checkpoint is not None:
        require_place(options.checkpoint)
    prepared = prepare(images, out, options, say)
    with torch_threads(options.threads):
        network, result = _trained(prepared, options, say)
        saliency = any(kind in SALIENCIES for kind in options.maps)
        detector = Reconstructor(
            features=compose_autoencoder(
                export_autoencoder(network),
                ("reconstruction", "saliency") if saliency else ("reconstruction",),
                layout=LAYOUT,
            ),
            kind="autoencoder",
            architecture=network.title,
            components=network.bottleneck,
            maps=options.maps,
            sigma=options.sigma_px if "pse" in options.maps else 0.0,
            chosen="given",
            fitted_on=prepared.fitted,
            reference=reference_of(network),
            loss=options.training.loss_title,
            epochs=len(result.epochs),
            best_epoch=result.best_epoch,
        )
        return finish(detector, prepared, out, options, say)


def _trained(prepared: Prepared, options: AutoencoderOptions, say: Say) -> tuple[Autoencoder, TrainingResult]:
    size_px, good = options.image_size, prepared.good
    shape = ImageShape(good.channels, size_px, size_px)
    needed_bytes = training_bytes(options.network, shape, bottleneck=options.bottleneck, batch_size=options.batch_size)
    memory.require(
        needed_bytes,
        f"training the {options.network} network on {options.batch_size} images of {size_px} x {size_px} px at once",
        "lower --batch-size or --image-size",
    )
    network = build_autoencoder(
        options.network, size_px, size_px, channels=good.channels, bottleneck=options.bottleneck, seed=options.seed
    )
    say(f"training: {network.architecture}; loss {options.training.loss_title}; at most {options.epochs} epochs")
    result = train(
        network,
        _images(prepared, shape, needed_bytes),
        options.training,
        groups=None if options.group_by is None else group_numbers(prepared.fitted, options.group_by),
        checkpoint=options.checkpoint,
    )
    say(_describe(result, options))
    return network, result


def _images(prepared: Prepared, shape: ImageShape, training_takes_bytes: int) -> ArrayImages | FileImages:
    interpolation = prepared.good.interpolation(shape.height, shape.width)
    good = prepared.good._replace(paths=prepared.fitted)
    files = FileImages(good, shape.height, shape.width, interpolation=interpolation)
    available = memory.available_bytes()
    if available is None or len(files) * shape.values > _SHARE_FOR_IMAGES * (available - training_takes_bytes):
        return files
    return files.in_memory()


def _describe(result: TrainingResult, options: AutoencoderOptions) -> str:
    count, best = len(result.epochs), result.best_epoch
    training, validation = result.epochs[best - 1]
    line = (
        f"trained {count} {'epoch' if count == 1 else 'epochs'} on {result.fitted} images; weights are those of epoch {best}: loss {training:.3g}, on "
        f"{result.held_out} for validation {validation:.3g}"
    )
    if result.stopped_early:
        return f"{line}; {options.patience} epochs since then were no better"
    if best < count:
        return line
    further = "" if options.checkpoint is None else f", which go on from {options.checkpoint},"
    return f"{line}, and still falling: more --epochs{further} would reconstruct better"
