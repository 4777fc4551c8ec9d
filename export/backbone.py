"""A torch network as an ONNX graph that carries nothing of the machine it was exported on."""

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory

import torch
from onnx import ModelProto
from torch import nn

from flawline.detectors.folded import FeatureNetwork
from flawline.export.feature_graph import BATCH, FeatureGraph, cut
from flawline.runtime.errors import InputError

_OPSET = 18  # what torch's exporter writes without converting


def export_backbone(network: FeatureNetwork, height: int, width: int) -> FeatureGraph:
    """Exports a network for one input size and any batch.

    Args:
        network: In inference form; its layers become the outputs.
        height: Of the input, in pixels.
        width: Of the input, in pixels.

    Returns:
        The graph, the same for the same weights: float32 (N, 3, height, width) to one float32 (N, c, h, w) per layer.

    Raises:
        InputError: The size is not a multiple of the network's total stride: padding and positions would depend on it.
    """
    stride = network.total_stride
    if min(height, width) < stride or height % stride or width % stride:
        raise InputError(f"images of {height} x {width} for {network.title}; expected multiples of its stride {stride}")
    model = trace(network, (3, height, width), network.layers, title=network.title)
    return cut(model, network.layers, height, width, origin=network.title)


def trace(network: nn.Module, image_shape: tuple[int, int, int], outputs: Sequence[str], *, title: str) -> ModelProto:
    """Exports a network as it comes from torch.

    Args:
        network: Takes images, float32 (N, channels, height, width), and gives a tensor, or a tuple of them.
        image_shape: Channels, height and width.
        outputs: Names for what it gives.
        title: What messages call the network.

    Returns:
        The network in inference form, with one input `image` and any batch.
    """
    # Not one: the exporter takes a batch of one for a constant.
    example = torch.zeros(2, *image_shape)
    with _quiet(), _no_cache(), _interruptible():
        program = torch.onnx.export(
            network.eval(),
            (example,),
            dynamo=True,
            external_data=False,
            verbose=False,
            opset_version=_OPSET,
            input_names=["image"],
            output_names=list(outputs),
            dynamic_shapes=({0: torch.export.Dim(BATCH)},),
        )
    if program is None:
        raise RuntimeError(f"torch returned no ONNX program for {title}")
    return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    # The exporter warns of its own deprecated calls and logs that torchvision, which nothing here needs, is absent.
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _no_cache() -> Iterator[None]:
    # The exporter makes a cache folder for a compiler that is never called; it goes when the export is done.
    name = "TORCHINDUCTOR_CACHE_DIR"
    before = os.environ.get(name)
    with TemporaryDirectory() as folder:
        os.environ[name] = folder
        try:
            yield
        finally:
            os.environ.pop(name)
            if before is not None:
                os.environ[name] = before


@contextmanager
def _interruptible() -> Iterator[None]:
    # The exporter makes an error of its own of whatever interrupts it, Ctrl-C included.
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, KeyboardInterrupt):
                raise KeyboardInterrupt from error
            cause = cause.__cause__ or cause.__context__
        raise
