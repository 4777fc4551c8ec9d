"""Networks from ONNX files of any kind: grey or colour, with padding or without."""

import hashlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flawline.export.features import export_features, open_backbone
from flawline.runtime.errors import InputError
from flawline.runtime.images import list_images, read_image

LAYERS = ("fine", "coarse")


@pytest.fixture(scope="module")
def unpadded_network(tmp_path_factory):
    """Writes a network of 3 x 3 convolutions without padding, of 1 or 3 image channels: 64 px give 31 and 15."""
    folder = tmp_path_factory.mktemp("unpadded")

    def write(channels):
        generator = np.random.default_rng(0)
        shapes = {"first": (6, channels, 3, 3), "second": (8, 6, 3, 3)}
        tensors = [
            numpy_helper.from_array(generator.normal(0, 0.3, shape).astype(np.float32), name)
            for name, shape in shapes.items()
        ]
        nodes = [
            helper.make_node("Conv", ["image", "first"], ["fine"], strides=[2, 2]),
            helper.make_node("Conv", ["fine", "second"], ["coarse"], strides=[2, 2]),
        ]
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", channels, "H", "W"])
        last = helper.make_tensor_value_info("coarse", TensorProto.FLOAT, ["N", 8, "h", "w"])
        graph = helper.make_graph(nodes, "unpadded", [image], [last], tensors)
        path = folder / f"unpadded_{channels}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
        return path

    return write


def backbone_of(path, **changes):
    given = {"layers": LAYERS, "weights": None, "image_size": 64, "mean": None, "std": None, "seed": 0}
    return open_backbone(str(path), **{**given, **changes})


def exported_map(backbone, **changes):
    given = {"channels": 1, "projection": "none", "dimension": None, "map_stride": None, "seed": 0}
    return export_features(backbone, **{**given, **changes}).map_size


def test_the_default_normalisation_has_a_number_per_channel_of_the_network(unpadded_network):
    grey, colour = (backbone_of(unpadded_network(channels)) for channels in (1, 3))
    assert colour.mean == (123.675, 116.28, 103.53)
    assert grey.mean == (pytest.approx((123.675 + 116.28 + 103.53) / 3),)
    assert grey.std == (pytest.approx((58.395 + 57.12 + 57.375) / 3),)


def test_one_number_holds_for_every_channel_and_three_are_too_many_for_a_grey_network(unpadded_network):
    assert backbone_of(unpadded_network(3), mean=(127.5,), std=(50.0,)).mean == (127.5,) * 3
    assert backbone_of(unpadded_network(1), mean=(127.5,)).mean == (127.5,)
    with pytest.raises(InputError, match="--std has 3 numbers for a network of 1 channels; expected 1"):
        backbone_of(unpadded_network(1), std=(50.0, 50.0, 50.0))


def test_a_network_without_padding_gives_the_map_of_its_finest_layer(unpadded_network):
    assert exported_map(backbone_of(unpadded_network(3))) == (31, 31)


@pytest.mark.parametrize("stride", [0, 3])
def test_a_stride_that_does_not_divide_the_image_is_refused(stride, unpadded_network):
    with pytest.raises(InputError, match=f"map stride {stride} does not divide"):
        exported_map(backbone_of(unpadded_network(3)), map_stride=stride)


def test_a_named_network_keeps_the_stride_of_its_own():
    assert exported_map(backbone_of("efficientnet-lite0", layers=None, weights="random")) == (8, 8)


def test_the_weights_of_a_network_file_are_known_by_its_hash(tiny_network):
    weights = backbone_of(tiny_network).weights
    assert (weights.origin, weights.random) == ("tiny.onnx", False)
    assert weights.sha256 == hashlib.sha256(tiny_network.read_bytes()).hexdigest()


def test_a_grey_network_is_fitted_and_scores(unpadded_network, good_images, tmp_path, capsys):
    from flawline.__main__ import main
    from flawline.runtime import Detector

    words = ["fit", good_images, "--out", tmp_path / "grey.flaw", "--backbone", unpadded_network(1)]
    words += ["--layers", "fine,coarse", "--image-size", 64, "--dim", 4, "--mean", 128, "--std", 64]
    assert main([str(word) for word in words]) == 0
    with Detector.open(tmp_path / "grey.flaw") as detector:
        assert detector.bundle.manifest.input.channels == 1
        assert detector(read_image(list_images(good_images)[0])).map.shape == (31, 31)
