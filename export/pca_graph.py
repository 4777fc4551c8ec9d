"""The reconstruction by principal components as one ONNX file, from the uint8 frame to float32 pixels.

The basis is stored once, in float16, and multiplied in float32. Rounding is worst along the first components, which carry
most of what differs between images; for as many of them as it takes, one more row holds what rounding left over, and a small
matrix puts the two together. Both products read the rows as they lie there: no second, transposed copy is made.

An engine may turn the rows into float32 when it loads the graph. ONNX Runtime does, and reads four bytes per number and
product for every frame; keeping it from that is slower, since its products know no float16 on a CPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from flawline import __version__
from flawline.export.feature_graph import BATCH
from flawline.export.graph import INPUT
from flawline.export.nodes import Nodes
from flawline.export.onnx_file import MOST_BYTES
from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    import onnx

    from flawline.calibration.principal_components import PrincipalComponents
else:
    onnx = LazyModule("onnx", "pip install 'flawline[fit]'")

OUTPUT = "reconstruction"

_OPSET = 18  # that of the feature graphs

# Rounding may move a pixel of the reconstruction by this share of the usual residual, root mean square. The pixel that makes
# a score has four times the usual residual, and its square moves twice as much: 1e-3 is four standard deviations away.
_ROUNDING = 5e-4
# Left over rows are this much smaller than their rows: multiplied by it, they are no subnormal numbers.
_LEFT_OVER = 2.0**11


def stored_basis(components: PrincipalComponents) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float32]]:
    """The basis as the file holds it.

    Args:
        components: Basis B of k rows, and the variances that say how much rounding matters.

    Returns:
        Rows float16 (k + m, D), the last m of which are left over from rounding the first m, and a matrix
        S float32 (k + m, k + m): rows^T S rows is B^T B.
    """
    basis = components.basis
    rows = basis.astype(np.float16)
    left_over = basis - rows
    moved = components.explained_variance * (left_over.astype(np.float64) ** 2).sum(axis=1)
    usual = max(components.total_variance - float(components.explained_variance.sum()), 0.0)
    # What all from the i-th on move together: the first m are those without which it is little enough.
    after = np.append(np.cumsum(moved[::-1])[::-1], 0.0)
    m = int(np.argmax(after <= _ROUNDING**2 * usual))
    rows = np.concatenate((rows, (left_over[:m] * _LEFT_OVER).astype(np.float16)))
    join = np.concatenate((np.eye(len(basis)), np.eye(m, len(basis)) / _LEFT_OVER))
    return rows, (join @ join.T).astype(np.float32)


def compose_reconstruction(components: PrincipalComponents, *, layout: Literal["nhwc", "nchw"] = "nhwc") -> bytes:
    """Writes mean + B^T B (frame - mean) as a graph (Gudi and others, 2022, section 3.0.1).

    Args:
        components: Mean and basis B.
        layout: Order of the frame's axes.

    Returns:
        The ONNX file, the same bytes for the same arguments. Its input `frame` is uint8 (N, height, width, channels), or
        (N, channels, height, width) in the layout nchw; its output `reconstruction` is float32 (N, channels, height,
        width) in units of the pixels. Nothing is normalised.

    Raises:
        InputError: The basis holds NaN or infinity, or is too large for one file.
    """
    channels, height, width = components.shape
    if not (np.isfinite(components.basis).all() and np.isfinite(components.mean).all()):
        raise InputError("the principal components hold NaN or infinity; expected finite numbers")
    stored, joined = stored_basis(components)
    if stored.nbytes + components.mean.nbytes > MOST_BYTES - (1 << 20):
        raise InputError(
            f"{len(components.basis)} components of {stored.shape[1]} numbers take {stored.nbytes} bytes, and an ONNX file holds "
            f"{MOST_BYTES}; choose fewer components or smaller images"
        )
    nodes = Nodes()
    # Cast first: TensorRT takes bytes, but can do nothing else with them.
    pixels = nodes.add("Cast", [INPUT], "frame_float", to=onnx.TensorProto.FLOAT)
    if layout == "nhwc":
        pixels = nodes.add("Transpose", [pixels], "frame_nchw", perm=(0, 3, 1, 2))
    flat = nodes.add("Reshape", [pixels, nodes.constant("flat_shape", np.array((-1, stored.shape[1])))], "frame_flat")
    mean = nodes.constant("mean", components.mean)
    centred = nodes.add("Sub", [flat, mean], "frame_centred")
    basis = nodes.add("Cast", [nodes.constant("basis", stored)], "basis_float", to=onnx.TensorProto.FLOAT)
    coefficients = nodes.add("Gemm", [centred, basis], "coefficients", transB=1)
    if len(stored) > len(components.basis):
        coefficients = nodes.add("MatMul", [coefficients, nodes.constant("joined", joined)], "coefficients_joined")
    rebuilt = nodes.add("Gemm", [coefficients, basis, mean], "reconstruction_flat")
    shape = nodes.constant("reconstruction_shape", np.array((-1, channels, height, width)))
    nodes.add("Reshape", [rebuilt, shape], OUTPUT)

    opsets = [onnx.helper.make_opsetid("", _OPSET)]
    frame_shape = (BATCH, height, width, channels) if layout == "nhwc" else (BATCH, channels, height, width)
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            nodes.nodes,
            "reconstruction",
            [onnx.helper.make_tensor_value_info(INPUT, onnx.TensorProto.UINT8, frame_shape)],
            [onnx.helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, (BATCH, channels, height, width))],
            initializer=nodes.constants,
        ),
        opset_imports=opsets,
        ir_version=onnx.helper.find_min_ir_version_for(opsets, ignore_unknown=True),
        producer_name="flawline",
        producer_version=__version__,
    )
    onnx.checker.check_model(model, full_check=True)
    serialised: bytes = model.SerializeToString(deterministic=True)
    return serialised
