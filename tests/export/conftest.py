"""Feature graphs composed for 8 bits, with frames to calibrate on and others to compare on."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from flawline.calibration import projections
from flawline.export.calibrated import Calibrated, calibrate, open_session
from flawline.export.features import open_backbone
from flawline.export.graph import compose
from flawline.runtime.images import list_images, read_image, write_image
from flawline.runtime.precisions import Precision

Frames = list[npt.NDArray[np.uint8]]
Features = list[npt.NDArray[np.float32]]
DIMENSION = 20
_CALIBRATION = 12
_COMPARED = 8


@dataclass(frozen=True)
class Network:
    """A float graph, what it computed on good frames, and good frames it did not see."""

    features: bytes
    calibration: Frames
    compared: Frames
    calibrated: Calibrated

    def run(self, model: bytes | None = None, batch: int = 1, precision: Precision = "fp32") -> Features:
        """Features of the compared frames, of the float graph or of another in the precision it was made for."""
        session = open_session(self.features if model is None else model, 1, precision=precision)
        stacked = np.stack(self.compared)
        runs = [session.run(None, {"frame": stacked[i : i + batch]}) for i in range(0, len(stacked), batch)]
        return [np.concatenate(maps) for maps in zip(*runs, strict=True)]

    def errors(self, features: Features) -> list[float]:
        """Relative L2 distance to the float graph, per output."""
        pairs = zip(features, self.run(), strict=True)
        return [float(np.linalg.norm(got - want) / np.linalg.norm(want)) for got, want in pairs]


def texture(seed: int, size: int, channels: int) -> npt.NDArray[np.uint8]:
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    shape = (size, size, channels)
    values = 128 + 40 * np.sin(x / 5) + 30 * np.cos(y / 7)
    return np.clip(values[:, :, None] + generator.normal(0, 12, shape), 0, 255).astype(np.uint8)


def composed(name: str, *, weights: str | None, layers: Sequence[str] | None, size: int, channels: int) -> bytes:
    backbone = open_backbone(name, layers=layers, weights=weights, image_size=size, mean=None, std=None, seed=0)
    depth = backbone.graph.depth
    stored = projections.stored("orthogonal", input_dimension=depth, dimension=DIMENSION, seed=0)
    features, _ = compose(
        backbone.graph,
        height=size,
        width=size,
        channels=channels,
        mean=backbone.mean,
        std=backbone.std,
        projection=projections.expand("orthogonal", stored, depth),
        map_stride=backbone.map_stride,
    )
    return features


def network_of(features: bytes, frames: Iterator[npt.NDArray[np.uint8]]) -> Network:
    calibration = [next(frames) for _ in range(_CALIBRATION)]
    compared = [next(frames) for _ in range(_COMPARED)]
    return Network(features, calibration, compared, calibrate(features, calibration, len(calibration)))


@pytest.fixture(scope="session")
def tiny(tiny_network: Path) -> Callable[[int], Network]:
    """Two convolutions on 64 x 64 px, for grey frames or colour ones."""

    @cache
    def make(channels: int) -> Network:
        layers = ("fine", "coarse")
        features = composed(str(tiny_network), weights=None, layers=layers, size=64, channels=channels)
        return network_of(features, (texture(seed, 64, channels) for seed in range(100)))

    return make


@pytest.fixture(scope="session")
def lite0() -> Network:
    """EfficientNet-Lite0 on 64 x 64 px: depthwise convolutions, ReLU6, sums."""
    features = composed("efficientnet-lite0", weights=None, layers=None, size=64, channels=3)
    return network_of(features, (texture(seed, 64, 3) for seed in range(100)))


@pytest.fixture(scope="session")
def resnet18(shared_data: Path) -> Network:
    """ResNet-18 of real weights on 128 x 128 px crops of real tiles."""
    weights = str(next((shared_data / "resnet18").glob("*.npz")))
    features = composed("resnet18", weights=weights, layers=None, size=128, channels=1)
    tiles = (read_image(path) for path in list_images(shared_data / "magnetic_tile" / "train" / "good"))
    crops = (tile[:128, :128].reshape(128, 128, 1) for tile in tiles if min(tile.shape[:2]) >= 128)
    return network_of(features, (np.ascontiguousarray(crop) for crop in crops))


@pytest.fixture(scope="session")
def ones(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 60 real digits, all of them ones: 28 x 28 px."""
    folder = tmp_path_factory.mktemp("ones")
    with np.load(shared_data / "mnist" / "mnist.npz") as data:
        images = data["x_train"][data["y_train"] == 1][:60]
    for index, image in enumerate(images):
        write_image(folder / f"one_{index:02}.png", image)
    return folder
