import os
from pathlib import Path

import numpy as np
import pytest

from flawline.runtime.images import write_image

HEIGHT, WIDTH = 96, 128


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real images and weights that is too large for the repository."""
    folder = os.environ.get("FLAWLINE_DATA")
    if folder is None or not Path(folder).is_dir():
        pytest.skip("FLAWLINE_DATA does not name a folder with magnetic_tile/, aitex/, mnist/ and resnet18/")
    return Path(folder)


@pytest.fixture(scope="session")
def digits(shared_data: Path) -> tuple[np.ndarray, np.ndarray]:
    """150 digits, uint8 (150, 28, 28), and their classes, int64; the file is sorted by class."""
    with np.load(shared_data / "mnist" / "mnist.npz") as data:
        chosen = np.random.default_rng(0).permutation(len(data["x_train"]))[:150]
        return data["x_train"][chosen], data["y_train"][chosen].astype(np.int64)


def textured(seed: int, *, flaw: bool = False) -> np.ndarray:
    """A grey frame, uint8 (96, 128): a grating with noise of its own; a flaw is a dark spot."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    values = 128 + 40 * np.sin(x / 5) + 30 * np.cos(y / 7) + generator.normal(0, 12, (HEIGHT, WIDTH))
    if flaw:
        values[40:56, 60:76] = 10
    return np.clip(values, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def good_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 40 good frames."""
    folder = tmp_path_factory.mktemp("good")
    for index in range(40):
        write_image(folder / f"good_{index:02}.png", textured(index))
    return folder


@pytest.fixture(scope="session")
def tiny_network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX network of two random convolutions with feature tensors `fine` (stride 4) and `coarse` (stride 8)."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(0)
    shapes = {"weight_1": (8, 3, 4, 4), "weight_2": (12, 8, 2, 2)}
    tensors = [
        numpy_helper.from_array(generator.normal(0, 0.3, shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["image", "weight_1"], ["conv_1"], strides=[4, 4]),
        helper.make_node("Relu", ["conv_1"], ["fine"]),
        helper.make_node("Conv", ["fine", "weight_2"], ["conv_2"], strides=[2, 2]),
        helper.make_node("Relu", ["conv_2"], ["coarse"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, "H", "W"])
    last = helper.make_tensor_value_info("coarse", TensorProto.FLOAT, ["N", 12, "h", "w"])
    graph = helper.make_graph(nodes, "tiny", [image], [last], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path_factory.mktemp("network") / "tiny.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory, good_images: Path, tiny_network: Path) -> Path:
    """A real bundle, small and quick: the tiny network on 64 x 64 px, fitted on the good frames. Do not change it."""
    from flawline.export.fit import FitOptions, fit_bundle
    from flawline.runtime.images import list_images

    out = tmp_path_factory.mktemp("bundle") / "tiny.flaw"
    options = FitOptions(
        backbone=str(tiny_network), layers=("fine", "coarse"), image_size=64, dimension=10, threads=1, smoothing_px=4.0
    )
    fit_bundle(list_images(good_images), out, options)
    return out


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled folder: 6 good frames, 4 with a spot and its mask."""
    root = tmp_path_factory.mktemp("dataset")
    folders = {name: root / name for name in ("train/good", "test/good", "test/spot", "ground_truth/spot")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    for index in range(6):
        write_image(folders["test/good"] / f"{index}.png", textured(100 + index))
        write_image(folders["train/good"] / f"{index}.png", textured(300 + index))
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[40:56, 60:76] = 255
    for index in range(4):
        write_image(folders["test/spot"] / f"{index}.png", textured(200 + index, flaw=True))
        write_image(folders["ground_truth/spot"] / f"{index}_mask.png", mask)
    return root
