"""The reconstruction by principal components as one ONNX file, from the uint8 frame to float32 pixels.

Rows of the basis are stored in float16 where that moves no pixel by much, the others in float32; all are multiplied in
float32. Rounding is worst along the first components, which carry most of what differs between images. Both products read
the rows as they lie there: no second, transposed copy is made.

An engine may turn the rows into float32 when it loads the graph. ONNX Runtime does, and reads four bytes per number and
product for every frame; keeping it from that is slower, since its products know no float16 on a CPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from flawline.export.frame_graph import INPUT, write_frame_graph
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

ROUNDINGS = (1e-4, 0.0)
"""Rounding may move a pixel of the reconstruction by this share of the usual residual, root mean square; the second is tried
where the first misses the gate, which is at 1e-3 of a score. By the first, maps of 60 solar cells moved by at most 3.2e-4, with 1
to 128 components and sigma of 0 to 4 px; those of 40 pieces of fabric of two brightnesses by 1.2e-3, and by 8e-5 in float32."""


def stored_basis(
    components: PrincipalComponents, rounding: float = ROUNDINGS[0]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float16]]:
    """The basis as the file holds it.

    Args:
        components: Basis B of k rows, and the variances that say how much rounding matters.
        rounding: See `ROUNDINGS`.

    Returns:
        The first m rows, float32 (m, D), and the others, float16 (k - m, D).
    """
    basis = components.basis
    rounded = basis.astype(np.float16)
    moved = components.explained_variance * ((basis - rounded).astype(np.float64) ** 2).sum(axis=1)
    usual = max(components.total_variance - float(components.explained_variance.sum()), 0.0)
    # What all from the i-th on move together: the first m are those without which it is little enough.
    after = np.append(np.cumsum(moved[::-1])[::-1], 0.0)
    m = int(np.argmax(after <= rounding**2 * usual))
    return basis[:m], rounded[m:]


def compose_reconstruction(
    components: PrincipalComponents, *, layout: Literal["nhwc", "nchw"] = "nhwc", rounding: float = ROUNDINGS[0]
) -> bytes:
    """Writes mean + B^T B (frame - mean) as a graph (Gudi and others, 2022, section 3.0.1).

    Args:
        components: Mean and basis B.
        layout: Order of the frame's axes.
        rounding: See `ROUNDINGS`.

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
    exact, rounded = stored_basis(components, rounding)
    stored_bytes, pixels_in_all = exact.nbytes + rounded.nbytes, len(components.mean)
    if stored_bytes + components.mean.nbytes > MOST_BYTES - (1 << 20):
        raise InputError(
            f"{len(components.basis)} components of {pixels_in_all} numbers take {stored_bytes} bytes, and an ONNX file holds "
            f"{MOST_BYTES}; choose fewer components or smaller images"
        )
    nodes = Nodes()
    # Cast first: TensorRT takes bytes, but can do nothing else with them.
    pixels = nodes.add("Cast", [INPUT], "frame_float", to=onnx.TensorProto.FLOAT)
    if layout == "nhwc":
        pixels = nodes.add("Transpose", [pixels], "frame_nchw", perm=(0, 3, 1, 2))
    flat = nodes.add("Reshape", [pixels, nodes.constant("flat_shape", np.array((-1, pixels_in_all)))], "frame_flat")
    mean = nodes.constant("mean", components.mean)
    centred = nodes.add("Sub", [flat, mean], "frame_centred")
    rebuilt = mean
    for name, rows in (("exact", exact), ("rounded", rounded)):
        if len(rows):
            basis = nodes.constant(f"basis_{name}", rows)
            if rows.dtype != np.float32:
                basis = nodes.add("Cast", [basis], f"basis_{name}_float", to=onnx.TensorProto.FLOAT)
            coefficients = nodes.add("Gemm", [centred, basis], f"coefficients_{name}", transB=1)
            rebuilt = nodes.add("Gemm", [coefficients, basis, rebuilt], f"reconstruction_{name}")
    shape = nodes.constant("reconstruction_shape", np.array((-1, channels, height, width)))
    nodes.add("Reshape", [rebuilt, shape], OUTPUT)

    return write_frame_graph(
        "reconstruction",
        components.shape,
        layout,
        {OUTPUT: components.shape},
        nodes.nodes,
        nodes.constants,
        [onnx.helper.make_opsetid("", _OPSET)],
    )
