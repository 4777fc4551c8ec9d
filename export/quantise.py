"""Feature graphs in 8 bits: QDQ form, in which each engine sees what it may compute in integers.

The integers of the weights come from `Calibrated`; where quantisation happens, from the rules of each engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import numpy as np

from flawline.export.converting import converting
from flawline.export.frame_bytes import exact_input, feed_bytes
from flawline.export.onnx_file import all_nodes, title
from flawline.export.sealed import sealed
from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule
from flawline.runtime.precisions import Precision, Quantised

if TYPE_CHECKING:
    from collections.abc import Collection

    import numpy.typing as npt
    import onnx
    from onnx import GraphProto, ModelProto
    from onnxruntime import quantization
    from onnxruntime.quantization import calibrate, qdq_quantizer

    from flawline.export.calibrated import Calibrated
else:
    onnx = LazyModule("onnx", "pip install 'flawline[fit]'")
    quantization = LazyModule("onnxruntime.quantization", "pip install 'flawline[ort]'")
    calibrate = LazyModule("onnxruntime.quantization.calibrate", "pip install 'flawline[ort]'")
    qdq_quantizer = LazyModule("onnxruntime.quantization.qdq_quantizer", "pip install 'flawline[ort]'")


class _Rules(NamedTuple):
    """What an engine wants.

    Attributes:
        operators: Those that are quantised.
        outputs: Whether the outputs of convolutions are quantised too.
        symmetric: Signed activations with zero points of 0 and float biases, or unsigned ones with any and int32 biases.
        float_projection: Convolutions that give the graph's outputs stay in float.
    """

    operators: tuple[str, ...]
    outputs: bool
    symmetric: bool
    float_projection: bool


_RULES: dict[Quantised, _Rules] = {
    # ONNX Runtime computes in integers only what lies between two pairs. Without them around a projection, its output
    # keeps its precision for 3 % of the time.
    "int8": _Rules(
        ("Conv", "Relu", "Clip", "Add", "MaxPool", "AveragePool", "Concat"),
        outputs=True,
        symmetric=False,
        float_projection=True,
    ),
    # The other two fuse convolution, sum and rectifier by themselves, and round once behind them.
    "int8-openvino": _Rules(("Conv",), outputs=False, symmetric=False, float_projection=False),
    "int8-tensorrt": _Rules(("Conv",), outputs=False, symmetric=True, float_projection=False),
}
_QUANTISED = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "DynamicQuantizeLinear")
# The quantiser writes a model without this mark to a temporary file to infer its shapes again.
_SHAPES_KNOWN = ("onnx.infer", "onnxruntime.quant")


def quantise(calibrated: Calibrated, precision: Quantised, *, keep_float: Collection[str] = ()) -> bytes:
    """Quantises a feature graph.

    Where a graph begins with bytes less a whole number (see `normalisation`), the bytes are the first convolution's
    quantised input, in the asymmetric precisions: nothing is computed before it, nothing is rounded.

    Args:
        calibrated: The graph and what it computed on good frames.
        precision: Which engine it is for.
        keep_float: Names of convolutions to leave in float32 with the activations behind them.

    Returns:
        The ONNX file: input and outputs as before; the same bytes for the same arguments.

    Raises:
        InputError: The precision or a layer is unknown, the network is quantised already, or the quantiser fails.
    """
    if precision not in _RULES:
        raise InputError(f"precision {precision} is unknown; expected one of {', '.join(get_args(Quantised))}")
    names = [node.name for node in calibrated.convolutions]
    unknown = sorted(set(keep_float) - set(names))
    if unknown:
        raise InputError(f"no convolution is named {', '.join(unknown)}; there are {', '.join(names)}")
    require_float(calibrated.model.graph, precision)
    rules = _RULES[precision]
    left = set(keep_float)
    if rules.float_projection:
        outputs = {value.name for value in calibrated.model.graph.output}
        left.update(node.name for node in calibrated.convolutions if outputs.intersection(node.output))
    return sealed(_rewrite(calibrated, precision, rules, [name for name in names if name not in left]), precision)


def require_float(graph: GraphProto, precision: Precision) -> None:
    """Refuses a graph that is quantised already, in whole or in part.

    Raises:
        InputError: It is; the message names the layer.
    """
    for node in all_nodes(graph.node):
        if node.op_type in _QUANTISED:
            raise InputError(f"layer {title(node)}: {precision} wants a network that is not quantised yet")


def quantise_alone(calibrated: Calibrated, precision: Quantised, layer: str) -> bytes:
    """Quantises the input and the weights of one convolution and leaves all else in float32.

    Raises:
        InputError: The quantiser fails.
    """
    rules = _RULES[precision]._replace(operators=("Conv",), outputs=False)
    serialised: bytes = _rewrite(calibrated, precision, rules, [layer]).SerializeToString()
    return serialised


def _rewrite(calibrated: Calibrated, precision: Quantised, rules: _Rules, layers: Collection[str]) -> ModelProto:
    """Quantises the named convolutions and what of the other operators touches them."""
    model = onnx.ModelProto()
    model.CopyFrom(calibrated.model)
    model.metadata_props.add(key=_SHAPES_KNOWN[0], value=_SHAPES_KNOWN[1])
    overrides: dict[str, list[dict[str, Any]]] = {}
    for node in calibrated.convolutions:
        if node.name in layers:
            overrides[node.input[1]] = _round(model, node.input[1], *calibrated.rounded[node.output[0]])
    exact = None if rules.symmetric else exact_input(model.graph, layers)
    if exact is not None:
        overrides[exact.tensor] = [_override(quantization.QuantType.QUInt8, np.float32(1), np.uint8(exact.zero))]
    ranges = {
        name: calibrate.TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name, (low, high) in calibrated.ranges(symmetric=rules.symmetric).items()
    }
    with converting(precision, "the quantiser of ONNX Runtime"):
        quantiser = qdq_quantizer.QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=False,
            weight_qType=quantization.QuantType.QInt8,
            activation_qType=quantization.QuantType.QInt8 if rules.symmetric else quantization.QuantType.QUInt8,
            tensors_range=calibrate.TensorsData(calibrate.CalibrationMethod.MinMax, ranges),
            nodes_to_quantize=[],
            nodes_to_exclude=[
                node.name for node in model.graph.node if node.op_type == "Conv" and node.name not in layers
            ],
            op_types_to_quantize=list(rules.operators),
            extra_options={
                "ActivationSymmetric": rules.symmetric,
                "QuantizeBias": not rules.symmetric,
                "OpTypesToExcludeOutputQuantization": [] if rules.outputs else ["Conv"],
                "TensorQuantOverrides": overrides,
            },
        )
        quantiser.quantize_model()
    if exact is not None:
        feed_bytes(quantiser.model.graph(), exact)
    quantiser.model.topological_sort()
    quantiser.model.clean_initializers()
    quantised: ModelProto = quantiser.model.model
    return quantised


def _round(
    model: ModelProto, name: str, integers: npt.NDArray[np.int8], scales: npt.NDArray[np.float32]
) -> list[dict[str, Any]]:
    """Puts the values of the integers in a weight's place, where the quantiser finds them again by their scales."""
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    values = integers * scales.reshape(-1, *[1] * (integers.ndim - 1))
    weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), name))
    return [_override(quantization.QuantType.QInt8, scale, np.int8(0), axis=0) for scale in scales]


def _override(kind: Any, scale: np.float32, zero_point: np.integer[Any], **axis: int) -> dict[str, Any]:
    return {"quant_type": kind, "scale": np.asarray(scale), "zero_point": np.asarray(zero_point), **axis}
