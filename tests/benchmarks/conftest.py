from pathlib import Path

import numpy as np
import pytest

from flawline.export.fit import FitOptions, fit_bundle

cv2 = pytest.importorskip("cv2")

SIDE = 72


def texture(generator: np.random.Generator) -> np.ndarray:
    """A smooth grey texture, uint8 (72, 72)."""
    noise = generator.normal(size=(SIDE, SIDE)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return np.clip(128 + 160 * smooth, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set in the MVTec layout, with masks: textures, and textures with a bright square or a dark bar."""
    folder = tmp_path_factory.mktemp("tiles")
    generator = np.random.default_rng(0)
    for name, count in (("train/good", 50), ("test/good", 12), ("test/spot", 8), ("test/bar", 6)):
        (folder / name).mkdir(parents=True)
        kind = name.split("/")[1]
        for number in range(count):
            image = texture(generator)
            mask = np.zeros_like(image)
            top, left = generator.integers(4, SIDE - 24, 2)
            if kind == "spot":
                mask[top : top + 14, left : left + 14] = 255
                image[mask > 0] = 250
            elif kind == "bar":
                mask[top : top + 5, left : left + 20] = 255
                image[mask > 0] = 5
            cv2.imwrite(str(folder / name / f"{number:03d}.png"), image)
            if kind != "good":
                truth = folder / "ground_truth" / kind
                truth.mkdir(parents=True, exist_ok=True)
                # The last bar has an empty mask, as happens in real data.
                if kind == "bar" and number == count - 1:
                    mask[:] = 0
                cv2.imwrite(str(truth / f"{number:03d}_mask.png"), mask)
    return folder


@pytest.fixture(scope="session")
def tile_options(tiny_network: Path) -> FitOptions:
    """How to fit the tiles with a tiny network."""
    return FitOptions(
        backbone=str(tiny_network),
        layers=("fine", "coarse"),
        image_size=64,
        map_stride=8,
        dimension=8,
        calibration_images=20,
        threads=2,
    )


@pytest.fixture(scope="session")
def tile_bundle(tiles: Path, tile_options: FitOptions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector fitted on the tiles."""
    path = tmp_path_factory.mktemp("bundle") / "tiles.flaw"
    fit_bundle(sorted((tiles / "train/good").iterdir()), path, tile_options)
    return path


@pytest.fixture(scope="session")
def tiny_words(tiny_network: Path) -> list[str]:
    """Options that choose the tiny network."""
    return ["--backbone", str(tiny_network), "--layers", "fine,coarse", "--image-size", "64", "--map-stride", "8"]
