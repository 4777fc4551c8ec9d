"""Features at full depth, once: every projection of them follows by linear algebra, without the network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from flawline.benchmarks.datasets import Item
from flawline.calibration.gaussian import Accumulator, assignment
from flawline.calibration.statistics import EmbeddingReader
from flawline.export.features import Backbone, export_features
from flawline.runtime.bundle import Input
from flawline.runtime.errors import InputError
from flawline.runtime.extractor import FeatureExtractor
from flawline.runtime.images import read_image
from flawline.runtime.memory import require
from flawline.runtime.precisions import ENGINES
from flawline.runtime.progress import progress

BATCH = 32


@dataclass(frozen=True)
class Features:
    """Statistics of the good images and embeddings of the test images, before any projection.

    Attributes:
        network: Name of the network.
        weights: Where its weights come from.
        image_size_px: Height and width of the network's input.
        map_size: Height and width of the map; P = height * width.
        fit_images: Images behind the statistics.
        mean: float64 (P, D).
        covariance: float64 (P, D, D), unbiased, not regularised.
        centred: float32 (P, N, D), embeddings of the test images less the mean of their position.
        items: The N test images.
    """

    network: str
    weights: str
    image_size_px: int
    map_size: tuple[int, int]
    fit_images: int
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    centred: NDArray[np.float32]
    items: tuple[Item, ...]

    @property
    def depth(self) -> int:
        """Channels D of all layers together."""
        return int(self.mean.shape[1])


def collect_features(
    backbone: Backbone, fit: Sequence[Path], test: Sequence[Item], *, map_stride: int | None, threads: int
) -> Features:
    """Runs the network once over all images, through the exported graph as the device would.

    Args:
        backbone: The network.
        fit: Good images for the statistics.
        test: Labelled images.
        map_stride: Input pixels per position of the map; the network's default if None.
        threads: Threads of the engine.

    Raises:
        InputError: An image cannot be read, or grey and colour are mixed.
        ResourceError: The statistics at full depth would not fit into memory.
    """
    if len(fit) < 2:
        raise InputError(f"{len(fit)} images to fit on; expected at least 2")
    first = read_image(fit[0])
    channels: Literal[1, 3] = 1 if first.ndim == 2 else 3
    exported = export_features(
        backbone, channels=channels, projection="none", dimension=None, map_stride=map_stride, seed=0
    )
    height, width = exported.map_size
    depth = exported.projection.dimension
    require(
        4 * height * width * depth * (5 * depth + len(test)),
        f"statistics of {height * width} positions at full depth {depth}",
        "raise --map-stride",
    )
    extractor = FeatureExtractor(
        exported.features,
        Input(height=exported.height, width=exported.width, channels=channels, interpolation="area"),
        exported.network,
        [depth] * len(exported.network.outputs),
        backend=ENGINES[exported.network.precision][0],
        threads=threads,
        batch=BATCH,
    )
    try:
        reader = EmbeddingReader(extractor, exported.map_size, "bilinear", threads=threads)
        accumulator = Accumulator(assignment("position", height, width), depth)
        for batch in reader.batches(progress((read_image(path) for path in fit), total=len(fit), label="fitting")):
            accumulator.add(batch)
        centred = np.empty((height * width, len(test), depth), np.float32)
        done = 0
        frames = progress((read_image(item.path) for item in test), total=len(test), label="embedding")
        for batch in reader.batches(frames):
            centred[:, done : done + len(batch)] = batch.transpose(1, 0, 2) - accumulator.mean[:, None]
            done += len(batch)
    finally:
        extractor.close()
    return Features(
        network=backbone.name,
        weights=backbone.weights.origin,
        image_size_px=backbone.size,
        map_size=exported.map_size,
        fit_images=len(fit),
        mean=accumulator.mean,
        covariance=accumulator.covariance(),
        centred=centred,
        items=tuple(test),
    )
