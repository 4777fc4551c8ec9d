"""A named network or any ONNX file, with preprocessing and projection, as the feature graph of a bundle."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy.typing as npt

from flawline.calibration import projections
from flawline.detectors import NETWORKS, build
from flawline.export.graph import FeatureGraph, compose, load_backbone
from flawline.runtime.bundle import manifest as facts
from flawline.runtime.errors import InputError

if TYPE_CHECKING:
    import torch

DEFAULT_DIMENSION = 100
_ONNX_SIZE = 224


class Exported(NamedTuple):
    """The feature graph and what a manifest says of it.

    Attributes:
        features: Bytes of the ONNX file.
        network: For the manifest.
        projection: For the manifest.
        stored_projection: As the bundle ships it; None for `none`.
        height: Of the network's input, px.
        width: Of the network's input, px.
        map_size: Height and width of the anomaly map.
        mean: Per channel, in units of 0 to 255.
        std: Likewise.
        module: The network in torch, as the reference of the parity gate; None for a network from an ONNX file.
        binning: Pixels of the input along each axis whose mean is one pixel of the network's image.
    """

    features: bytes
    network: facts.Network
    projection: facts.Projection
    stored_projection: npt.NDArray[Any] | None
    height: int
    width: int
    map_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    module: "torch.nn.Module | None"
    binning: int = 1


class Backbone(NamedTuple):
    """A network before preprocessing and projection are added; see `Exported`."""

    graph: FeatureGraph
    name: str
    weights: facts.Weights
    size: int
    map_stride: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    module: "torch.nn.Module | None"
    binning: int = 1


def open_backbone(
    backbone: str,
    *,
    layers: Sequence[str] | None,
    weights: str | None,
    image_size: int | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    seed: int,
) -> Backbone:
    """Builds a named network, or loads one from an ONNX file.

    Args:
        backbone: Name of a network, or path of an ONNX file.
        layers: Feature layers; the network's default ones if None.
        weights: Weights file, `random`, or None for the installed default; not for ONNX files, which hold theirs.
        image_size: Height and width of the input, px; the network's default if None.
        mean: In units of 0 to 255, for ONNX files: one number per channel of the network, or one for all of them.
            ImageNet's if None; for a grey network the mean of its three.
        std: Likewise.
        seed: Of random weights.

    Raises:
        InputError: The network, a layer, the weights, the size, the mean or the std is not what it must be.
        MissingExtraError: torch or onnx is not installed.
    """
    if image_size is not None and not 32 <= image_size <= 8192:
        raise InputError(f"image size is {image_size} px; expected 32 to 8192")
    if backbone.endswith(".onnx"):
        if not layers:
            raise InputError(f"{backbone} needs --layers: the names of its feature tensors, separated by commas")
        if weights is not None:
            raise InputError(f"--weights {weights} does not go with an ONNX file, which holds its own")
        size = image_size or _ONNX_SIZE
        graph = load_backbone(Path(backbone), layers, size, size)
        imagenet = NETWORKS["resnet18"]
        return Backbone(
            graph,
            name=Path(backbone).stem,
            weights=facts.Weights(origin=Path(backbone).name, sha256=graph.sha256, random=False),
            size=size,
            map_stride=None,
            mean=_per_channel("--mean", mean, imagenet.mean, graph.image_channels),
            std=_per_channel("--std", std, imagenet.std, graph.image_channels),
            module=None,
        )
    if backbone not in NETWORKS:
        raise InputError(
            f"backbone '{backbone}' is unknown; expected one of {', '.join(NETWORKS)} or the path of an .onnx file"
        )
    if mean is not None or std is not None:
        raise InputError(f"--mean and --std are for ONNX files; {backbone} brings its own")
    from flawline.export.backbone import export_backbone  # imports torch

    description = NETWORKS[backbone]
    module, record = build(backbone, weights, seed, layers)
    size = image_size or description.image_size_px
    graph = export_backbone(module, size, size)
    origin = facts.Weights(origin=record.origin, sha256=record.sha256, random=record.random)
    return Backbone(
        graph, backbone, origin, size, description.map_stride, description.mean, description.std, module=module
    )


def projected_dimension(backbone: Backbone, projection: projections.Kind, dimension: int | None) -> int:
    """Channels that a projection leaves; see `export_features` for the arguments.

    Raises:
        InputError: The dimension is not between 1 and the depth of the features, or `none` is to leave some out.
    """
    depth = backbone.graph.depth
    if dimension is None:
        return depth if projection == "none" else min(DEFAULT_DIMENSION, depth)
    lowest = depth if projection == "none" else 1
    if not lowest <= dimension <= depth:
        expected = f"1 to {depth}" if lowest == 1 else f"{depth}, since projection 'none' keeps them all"
        raise InputError(
            f"dimension is {dimension}; the chosen layers have {depth} channels, so it must be {expected}: change --dim, or "
            "leave it out"
        )
    return dimension


def export_features(
    backbone: Backbone,
    *,
    channels: int,
    layout: Literal["nhwc", "nchw"] = "nhwc",
    projection: projections.Kind,
    dimension: int | None,
    map_stride: int | None,
    seed: int,
    crop: int = 0,
) -> Exported:
    """Adds preprocessing in front and the folded projection behind.

    Args:
        backbone: The network.
        channels: 1 for grey images, 3 for colour.
        layout: Order of the axes of the graph's input.
        projection: Kind of projection.
        dimension: Channels that remain; 100, or all if there are fewer, if None.
        map_stride: Input pixels per position of the map; the network's default if None. A network from an ONNX file has
            none: its map is as fine as its finest layer.
        seed: Of the projection.
        crop: Frame pixels on each side that the maps leave out.

    Raises:
        InputError: The dimension is above the depth of the features, or the stride does not fit the layers.
    """
    depth = backbone.graph.depth
    dimension = projected_dimension(backbone, projection, dimension)
    stored = projections.stored(projection, input_dimension=depth, dimension=dimension, seed=seed)
    matrix = None if stored is None else projections.expand(projection, stored, depth)
    graph, binning = backbone.graph, backbone.binning
    height, width = graph.height * binning, graph.width * binning
    if map_stride is None and backbone.map_stride is not None:
        map_stride = backbone.map_stride * binning
    features, outputs = compose(
        graph,
        height=height,
        width=width,
        channels=channels,
        layout=layout,
        mean=backbone.mean,
        std=backbone.std,
        projection=matrix,
        map_stride=map_stride,
        crop=crop,
        binning=binning,
    )
    return Exported(
        features=features,
        network=facts.Network(
            name=backbone.name,
            layers=list(backbone.graph.layers),
            weights=backbone.weights,
            precision="fp32",
            input="frame",
            outputs=[facts.Output(name=name, height=height, width=width) for name, height, width in outputs],
            total_stride=max(graph.strides) * binning,
        ),
        projection=facts.Projection(
            kind=projection, seed=seed, input_dimension=depth, dimension=dimension, generator=projections.GENERATOR
        ),
        stored_projection=stored,
        height=height,
        width=width,
        map_size=(outputs[0][1], outputs[0][2]),
        mean=backbone.mean,
        std=backbone.std,
        module=backbone.module,
        binning=binning,
    )


def _per_channel(
    option: str, given: tuple[float, ...] | None, imagenet: tuple[float, ...], channels: int
) -> tuple[float, ...]:
    if given is None:
        return imagenet if channels == len(imagenet) else (sum(imagenet) / len(imagenet),) * channels
    if len(given) not in (1, channels):
        raise InputError(f"{option} has {len(given)} numbers for a network of {channels} channels; expected {channels}")
    return given if len(given) == channels else given * channels
