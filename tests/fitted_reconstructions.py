"""Reconstruction detectors that were fitted, small and quick: of grey images and of colour, with every kind of map."""

from pathlib import Path
from typing import Literal

import numpy as np

from flawline.runtime.bundle import Bundle
from flawline.runtime.images import write_image

Fitted = Literal["pca grey", "pca colour", "autoencoder grey", "autoencoder colour"]
FITTED: tuple[Fitted, ...] = ("pca grey", "pca colour", "autoencoder grey", "autoencoder colour")
SIDE = 28


def fit(fitted: Fitted, folder: Path) -> Bundle:
    """Fits a detector on made-up images and writes its bundle into a folder, which is there and empty."""
    from flawline.export.fit_autoencoder import AutoencoderOptions, fit_autoencoder_bundle
    from flawline.export.fit_pca import PcaOptions, fit_pca_bundle
    from flawline.runtime.bundle.manifest import RECONSTRUCTION_MAP_KINDS

    images = folder / "good"
    images.mkdir()
    paths = [images / f"{index:02}.png" for index in range(32)]
    for index, path in enumerate(paths):
        write_image(path, image(index, colour="colour" in fitted))
    out = folder / f"{fitted.replace(' ', '-')}.flaw"
    if "pca" in fitted:
        return fit_pca_bundle(paths, out, PcaOptions(image_size=SIDE, components=5, sigma=1.5, threads=1))
    return fit_autoencoder_bundle(
        paths,
        out,
        AutoencoderOptions(
            image_size=SIDE,
            network="convolutional",
            epochs=2,
            batch_size=16,
            sigma=1.5,
            maps=("pse", *(kind for kind in RECONSTRUCTION_MAP_KINDS if kind != "pse")),
            threads=1,
        ),
    )


def image(seed: int, size: tuple[int, int] = (56, 60), *, colour: bool = False) -> np.ndarray:
    """uint8 (height, width) or (height, width, 3): a grating of its own phase with noise."""
    generator = np.random.default_rng(seed)
    y, x = np.indices(size)
    waves = [np.sin(x / 5 + phase) + np.cos(y / 7 + phase) for phase in generator.uniform(0, 6, 3 if colour else 1)]
    values = 128 + 40 * np.stack(waves, axis=-1) + generator.normal(0, 12, (*size, len(waves)))
    pixels = np.clip(values, 0, 255).astype(np.uint8)
    return pixels if colour else pixels[..., 0]
