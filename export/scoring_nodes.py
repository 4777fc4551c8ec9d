"""Feature maps to anomaly map, score and verdict in plain ONNX operators: what `runtime.kernels` computes, written out.

Upsampling and smoothing are linear along each axis, so each is a product with one small constant matrix per axis. That
is exact where engines round the positions of resampled pixels in ways of their own, reflects borders of any width, and
is faster in ONNX Runtime than its resize.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flawline.export.factor_blocks import Block, blocks
from flawline.export.nodes import Nodes
from flawline.runtime.extras import LazyModule
from flawline.runtime.kernels.interpolation import gaussian_taps, reflect, resampling_taps

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

    from flawline.runtime.bundle.manifest import Output
    from flawline.runtime.kernels import Gaussians, Upsampling
else:
    onnx = LazyModule("onnx", "pip install 'flawline[fit]'")

Floats = npt.NDArray[np.float32]

# From this opset on, the reductions that are used here take their axes as an input.
_AXES_ARE_INPUTS = 18
_REST = -1


class ScoringNodes(Nodes):
    """The nodes behind a feature graph.

    Args:
        opset: Of the graph that they are for, 17 to 20.
        prefix: Begins the name of every tensor but the graph's outputs.
    """

    def __init__(self, opset: int, prefix: str) -> None:
        super().__init__()
        self._opset = opset
        self._prefix = prefix

    def embeddings(self, maps: Sequence[tuple[str, Output]], size: tuple[int, int], upsampling: Upsampling) -> str:
        """Adds the sum of feature maps, each brought to one size.

        Args:
            maps: Tensors, float32 (N, d, height, width), and their sizes.
            size: Height and width of the anomaly map.
            upsampling: How coarser ones are upsampled.

        Returns:
            The embeddings, (N, d, h, w).
        """
        upsampled = []
        for i, (name, output) in enumerate(maps):
            tensor = name
            if (output.height, output.width) != size:
                rows = upsampling_matrix(output.height, size[0], upsampling)
                columns = upsampling_matrix(output.width, size[1], upsampling)
                tensor = self._between(rows, tensor, columns, f"upsampled_{i}")
            upsampled.append(tensor)
        return upsampled[0] if len(upsampled) == 1 else self._op("Sum", upsampled, "embeddings")

    def distances(self, embeddings: str, size: tuple[int, int], gaussians: Gaussians) -> str:
        """Adds the distances to the Gaussians.

        The vectors of positions that share a Gaussian are the rows of one matrix: a factor is read once for all.

        Args:
            embeddings: Tensor (N, d, h, w).
            size: (h, w).
            gaussians: One for each output, the position p modulo their number for position p, counted row by row.

        Returns:
            The distances, (N, 1, h, w).
        """
        count, dimension = gaussians.count, gaussians.dimension
        shared = size[0] * size[1] // count
        split = self._reshape(embeddings, (0, dimension, shared, count), "embeddings/by_gaussian")
        moved = self._op("Transpose", [split], "embeddings/gaussian_first", perm=(3, 0, 2, 1))
        vectors = self._reshape(moved, (count, 1, _REST, dimension), "vectors")
        centred = self._op("Sub", [vectors, self._constant("means", gaussians.means[:, :, None])], "centred")
        parts = [
            self._squared_norms(block, centred, dimension, f"block_{i}") for i, block in enumerate(blocks(gaussians))
        ]
        squared = parts[0] if len(parts) == 1 else self._op("Sum", parts, "squared")
        if gaussians.form == "woodbury":
            length = self._reduce("ReduceSumSquare", centred, (3,), f"{self._prefix}squared/length")
            difference = self._op("Sub", [length, squared], "squared/difference")
            squared = self._op("Relu", [difference], "squared/not_negative")
        # The scale comes last: the factors are stored as far from the ends of fp16's range as it keeps them.
        unscaled = self._op("Sqrt", [squared], "unscaled")
        distances = self._op("Mul", [unscaled, self._constant("scales", gaussians.scales[..., None])], "distances")
        if gaussians.components > 1:
            distances = self._reduce("ReduceMin", distances, (1,), f"{self._prefix}distances/smallest")
        grouped = self._reshape(distances, (count, _REST, shared), "distances/by_gaussian")
        back = self._op("Transpose", [grouped], "distances/frame_first", perm=(1, 2, 0))
        return self._reshape(back, (_REST, 1, *size), "distances/map")

    def outputs(self, distances: str, size: tuple[int, int], sigma: float, threshold: float) -> None:
        """Adds the graph's outputs: `map` (N, h, w), `score` (N,) and `verdict` (N,).

        Args:
            distances: Tensor (N, 1, h, w).
            size: (h, w).
            sigma: Standard deviation of the smoothing, in pixels of the map; 0 for none.
            threshold: Scores above it are rejected.
        """
        if sigma > 0:
            rows, columns = (smoothing_matrix(side, sigma) for side in size)
            distances = self._between(rows, distances, columns, "smoothed")
        self.add("Reshape", [distances, self._constant("map/shape", np.array((_REST, *size), np.int64))], "map")
        self._reduce("ReduceMax", "map", (1, 2), "score")
        limit = self._constant("threshold", np.array(_float32_below(threshold)))
        # Not good, rather than bad: a score that is NaN rejects its frame.
        good = self._op("LessOrEqual", ["score", limit], "good")
        self.add("Not", [good], "verdict")

    def _squared_norms(self, block: Block, centred: str, dimension: int, name: str) -> str:
        factor = self._fp32(f"{name}/factors", block.values)
        if block.row_scales is not None:
            row_scales = self._fp32(f"{name}/row_scales", block.row_scales[:, :, None])
            factor = self._op("Mul", [factor, row_scales], f"{name}/factors/scaled")
        columns = block.values.shape[2]
        if columns < dimension:
            bounds = {"starts": 0, "ends": columns, "axes": 3}
            limits = [self._constant(f"{name}/{key}", np.array([value], np.int64)) for key, value in bounds.items()]
            centred = self._op("Slice", [centred, *limits], f"{name}/columns")
        product = self._op("MatMul", [centred, factor], f"{name}/whitened")
        return self._reduce("ReduceSumSquare", product, (3,), f"{self._prefix}{name}/squared")

    def _fp32(self, name: str, value: npt.NDArray[Any]) -> str:
        """A constant as it is stored; engines make it fp32 once, when they load the file."""
        constant = self._constant(name, value)
        if value.dtype == np.float32:
            return constant
        return self._op("Cast", [constant], f"{name}/fp32", to=onnx.TensorProto.FLOAT)

    def _between(self, rows: Floats, tensor: str, columns: Floats, name: str) -> str:
        """Rows @ tensor @ columns^T, on the last two axes."""
        wide = self._op("MatMul", [tensor, self._constant(f"{name}/columns", columns.T)], f"{name}/wide")
        return self._op("MatMul", [self._constant(f"{name}/rows", rows), wide], name)

    def _op(self, operator: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        return self.add(operator, inputs, self._prefix + name, **attributes)

    def _constant(self, name: str, value: npt.NDArray[Any]) -> str:
        return self.constant(self._prefix + name, value)

    def _reshape(self, tensor: str, shape: tuple[int, ...], name: str) -> str:
        return self._op("Reshape", [tensor, self._constant(f"{name}/shape", np.array(shape, np.int64))], name)

    def _reduce(self, operator: str, tensor: str, axes: tuple[int, ...], output: str) -> str:
        if self._opset < _AXES_ARE_INPUTS:
            return self.add(operator, [tensor], output, axes=axes, keepdims=0)
        indices = self.constant(f"{self._prefix}{output}/axes", np.array(axes, np.int64))
        return self.add(operator, [tensor, indices], output, keepdims=0)


def upsampling_matrix(source: int, target: int, upsampling: Upsampling) -> Floats:
    """The matrix (target, source) that resamples an axis as the kernels do."""
    taps = resampling_taps(source, target, upsampling)
    matrix = np.zeros((target, source), np.float32)
    pixels = np.arange(target)
    matrix[pixels, taps.low] = 1 - taps.weight
    matrix[pixels, taps.high] += taps.weight
    return matrix


def smoothing_matrix(size: int, sigma: float) -> Floats:
    """The matrix (size, size) that smooths an axis as the kernels do, its border reflected."""
    taps = gaussian_taps(sigma)
    border = reflect(size, len(taps) // 2)
    matrix = np.zeros((size, size), np.float32)
    for pixel in range(size):
        np.add.at(matrix[pixel], border[pixel : pixel + len(taps)], taps)
    return matrix


def _float32_below(threshold: float) -> np.float32:
    """The largest float32 that is not above a threshold: a float32 score is above both or above neither."""
    rounded = np.float32(min(threshold, float(np.finfo(np.float32).max)))
    below: np.float32 = np.nextafter(rounded, np.float32(-np.inf))
    return below if float(rounded) > threshold else rounded
