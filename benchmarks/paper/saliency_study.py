"""The experiment of Feeney and Hughes (2021, section 4): error maps against saliency maps on MNIST.

The convolutional autoencoder learns to reconstruct normal digits, 0 to 4, of the training set with the mean squared error.
Maps are of the test set, whose digits 5 to 9 are novel to it.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flawline.benchmarks.paper.mnist import SIDE_PX, Digits
from flawline.benchmarks.paper.saliency_comparison import Maps, SeedResult, compare
from flawline.benchmarks.paper.saliency_maps import graph_of, maps_of
from flawline.benchmarks.paper.saliency_options import GROUPS, StudyOptions
from flawline.detectors.autoencoder import Autoencoder
from flawline.detectors.autoencoders import build_autoencoder
from flawline.detectors.torch_threads import torch_threads
from flawline.detectors.training import TrainingResult, train
from flawline.detectors.training_images import ArrayImages
from flawline.runtime.errors import InputError

Images = npt.NDArray[np.uint8]


class Examples(NamedTuple):
    """Images for a picture like the paper's figure 1.

    Attributes:
        groups: `normal` or `novel`, of each.
        images: uint8 (B, 28, 28).
        maps: Of these images.
    """

    groups: list[str]
    images: Images
    maps: Maps


def run(
    options: StudyOptions, train_digits: Digits, test_digits: Digits, say: Callable[[str], object]
) -> Iterator[tuple[SeedResult, Examples]]:
    """Trains and compares, seed by seed.

    Args:
        options: What is asked.
        train_digits: To train on.
        test_digits: To compare maps of.
        say: Takes each line that tells what is being done.

    Yields:
        What a seed came to, and its pictured images.

    Raises:
        InputError: There are fewer normal images than asked for, too few to hold some out, or none of a group to test on.
        DivergedError: The loss became NaN or infinite.
        MissingExtraError: No engine is installed.
        ResourceError: The maps would not fit into memory.
    """
    tested = {name: test_digits.of(classes) for name, classes in GROUPS.items()}
    for name, images in tested.items():
        if not len(images):
            raise InputError(f"no {name} digit to test on; expected some of 0 to 4 (normal) and of 5 to 9 (novel)")
    normal = train_digits.of(GROUPS["normal"])
    with torch_threads(options.threads):
        for seed in range(options.seed, options.seed + options.seeds):
            images = _drawn(normal, options.train_images, seed)
            say(f"seed {seed}: training on {len(images)} normal digits, at most {options.epochs} epochs")
            network = build_autoencoder("convolutional", SIDE_PX, SIDE_PX, seed=seed)
            training = train(network, ArrayImages(images), options.training(seed))
            yield measured(network, training, tested, options, seed=seed, images=len(images))


def measured(
    network: Autoencoder,
    training: TrainingResult,
    tested: dict[str, Images],
    options: StudyOptions,
    *,
    seed: int,
    images: int,
) -> tuple[SeedResult, Examples]:
    """Compares the maps of a trained network.

    Args:
        network: Trained.
        training: How.
        tested: uint8 (N, 28, 28), the images of each group.
        options: What is asked.
        seed: Of the training and of the choice of pictured images.
        images: How many were trained on.
    """
    graph = graph_of(network)
    maps = {name: maps_of(graph, shown, threads=options.threads) for name, shown in tested.items()}
    result = SeedResult(
        seed=seed,
        images=images,
        epochs=training.epochs,
        best_epoch=training.best_epoch,
        stopped_early=training.stopped_early,
        groups={name: compare(one) for name, one in maps.items()},
    )
    generator = np.random.default_rng(seed)
    chosen = {name: generator.permutation(len(shown))[: options.pictured] for name, shown in tested.items()}
    examples = Examples(
        groups=[name for name, indices in chosen.items() for _ in indices],
        images=np.concatenate([tested[name][indices] for name, indices in chosen.items()]),
        maps=Maps(
            *(
                np.concatenate([getattr(maps[name], kind)[indices] for name, indices in chosen.items()])
                for kind in Maps._fields
            )
        ),
    )
    return result, examples


def _drawn(normal: Images, count: int | None, seed: int) -> Images:
    if not len(normal):
        raise InputError("no normal digit to train on; expected some of 0 to 4")
    if count is None:
        return normal
    if count > len(normal):
        raise InputError(f"--train-images {count}: {len(normal)} normal digits are there; ask for fewer")
    return normal[np.sort(np.random.default_rng(seed).permutation(len(normal))[:count])]
