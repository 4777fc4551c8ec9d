"""Weights in 8 bits: what the layer computes with them, not how near each of them is."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from onnx import helper
from torch.nn import functional

from flawline.export.rounding import patches, round_weight


def convolution(**attributes: Any) -> Any:
    return helper.make_node("Conv", ["x", "w"], ["y"], **attributes)


def smooth_patches(count: int, taps: int) -> npt.NDArray[np.float32]:
    """Neighbours that are nearly alike, as in images: (1, count, taps)."""
    generator = np.random.default_rng(0)
    values = generator.uniform(50, 200, (1, count, 1)) + generator.normal(0, 3, (1, count, taps))
    return values.astype(np.float32)


@pytest.mark.parametrize(
    ("shape", "attributes"),
    [
        ((6, 4, 3, 3), {"pads": (1, 1, 1, 1)}),
        ((6, 4, 3, 3), {"pads": (0, 1, 2, 1), "strides": (2, 3)}),
        ((6, 4, 3, 2), {"dilations": (2, 1)}),
        ((6, 2, 3, 3), {"group": 2}),
        ((4, 1, 5, 5), {"group": 4, "pads": (2, 2, 2, 2), "strides": (2, 2)}),
        ((6, 4, 1, 1), {}),
    ],
)
def test_patches_times_filters_are_the_convolution(shape: tuple[int, ...], attributes: dict[str, Any]) -> None:
    generator = np.random.default_rng(0)
    values = generator.standard_normal((1, 4, 9, 12)).astype(np.float32)
    weight = generator.standard_normal(shape).astype(np.float32)
    everywhere = patches(convolution(**attributes), shape, values, 10_000, 0.0)
    assert everywhere is not None
    groups = len(everywhere)
    received = np.einsum("gpt,gft->gfp", everywhere, weight.reshape(groups, shape[0] // groups, -1))
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    expected = functional.conv2d(
        functional.pad(torch.from_numpy(values), (left, right, top, bottom)),
        torch.from_numpy(weight),
        stride=attributes.get("strides", 1),
        dilation=attributes.get("dilations", 1),
        groups=groups,
    )
    assert np.allclose(received.reshape(shape[0], -1), expected.numpy().reshape(shape[0], -1), atol=1e-4)


def test_frames_show_different_positions() -> None:
    values = np.arange(100, dtype=np.float32).reshape(1, 1, 10, 10)
    node, shape = convolution(), (1, 1, 1, 1)
    first, second = (patches(node, shape, values, 8, shift) for shift in (0.0, 0.6))
    assert first is not None
    assert second is not None
    assert first.shape == (1, 8, 1)
    assert not set(first.ravel()).intersection(second.ravel())


def test_padding_that_depends_on_the_input_is_left_alone() -> None:
    values = np.zeros((1, 1, 8, 8), np.float32)
    assert patches(convolution(auto_pad="SAME_UPPER"), (1, 1, 3, 3), values, 8, 0.0) is None


def test_errors_cancel_in_what_the_layer_computes() -> None:
    seen = smooth_patches(2000, 49)
    weight = np.random.default_rng(2).normal(0, 0.1, (16, 1, 7, 7)).astype(np.float32)
    # Edge filters: on a plain surface they give nothing.
    weight -= weight.mean(axis=(2, 3), keepdims=True)
    errors = []
    for gram in (None, seen.transpose(0, 2, 1) @ seen):
        integers, scale = round_weight(weight, gram)
        wrong = (integers * scale.reshape(-1, 1, 1, 1) - weight).reshape(16, -1) @ smooth_patches(500, 49)[0].T
        errors.append(np.linalg.norm(wrong))
    assert errors[1] < errors[0] / 5


def test_integers_are_within_a_few_steps_and_the_range() -> None:
    seen = smooth_patches(2000, 9)
    weight = np.random.default_rng(3).normal(0, 0.1, (8, 1, 3, 3)).astype(np.float32)
    integers, scale = round_weight(weight, seen.transpose(0, 2, 1) @ seen)
    assert integers.dtype == np.int8
    assert integers.min() >= -127
    assert np.abs(integers * scale.reshape(-1, 1, 1, 1) - weight).max() <= 3 * scale.max()


@pytest.mark.parametrize("gram", [None, np.zeros((1, 9, 9), np.float32), np.ones((1, 9, 9), np.float32)])
def test_filters_of_zeros_and_inputs_that_say_nothing_give_finite_scales(gram: npt.NDArray[np.float32] | None) -> None:
    weight = np.zeros((3, 1, 3, 3), np.float32)
    weight[0] = np.linspace(-1, 1, 9).reshape(3, 3)
    integers, scale = round_weight(weight, gram)
    assert (scale > 0).all()
    assert np.isfinite(scale).all()
    assert not integers[1:].any()
    assert round_weight(np.zeros_like(weight), gram)[1].tolist() == [1, 1, 1]
