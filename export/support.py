"""Whether a network can be had in a precision: asked before anything is fitted, which takes minutes."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

import msgspec

from flawline.export.fitting import extractor_of
from flawline.export.half import to_fp16
from flawline.export.onnx_file import computed_names, names_read, title
from flawline.export.quantise import require_float
from flawline.runtime.errors import BundleError, EngineError
from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    import onnx

    from flawline.export.features import Exported
    from flawline.runtime.bundle.manifest import PadimManifest
    from flawline.runtime.precisions import Precision
else:
    onnx = LazyModule("onnx", "pip install 'flawline[fit]'")


def require_support(precision: Precision, exported: Exported, manifest: PadimManifest, *, threads: int) -> None:
    """Refuses a precision that the network, the engine it is for or this machine does not support.

    Args:
        precision: That is asked for; not fp32, in which the network is already.
        exported: The float network.
        manifest: Of the detector to be.
        threads: Threads of the engine.

    Raises:
        InputError: An operator or a weight has no form in that precision, or the network is quantised already.
        EngineError: The engine refuses an operator, or cannot compute in that precision here.
        MissingExtraError: The engine is not installed.
    """
    features = exported.features
    # In bf16 the engine computes what the file has in float, and nothing is converted.
    if precision != "bf16":
        require_float(onnx.load_from_string(features).graph, precision)
    if precision == "fp16":
        features = to_fp16(features)
    # In 8 bits the graph has the operators of the float one, and pairs of two that every engine knows.
    network = msgspec.structs.replace(exported.network, precision=precision)
    candidate = exported._replace(features=features, network=network)
    refusal = _refusal(candidate, manifest, threads)
    if refusal is not None:
        raise EngineError(f"in {precision}, {_told(refusal, candidate, manifest, threads)}") from refusal


def _refusal(exported: Exported, manifest: PadimManifest, threads: int) -> EngineError | None:
    """What the engine has against a graph; outputs that are not those of the manifest are nothing."""
    try:
        extractor_of(exported, manifest, threads=threads).close()
    except EngineError as error:
        return error
    except BundleError:
        return None
    return None


def _told(refusal: EngineError, exported: Exported, manifest: PadimManifest, threads: int) -> str:
    """The refusal with the first layer that is refused, which engines do not always name, if it is a single one."""
    nodes = onnx.load_from_string(exported.features).graph.node

    def refused(count: int) -> EngineError | None:
        return _refusal(exported._replace(features=_beginning(exported.features, count)), manifest, threads)

    # What refuses the very first node, or the whole alone, is no operator.
    if refused(1) is not None or refused(len(nodes)) is None:
        return str(refusal)
    first = bisect_left(range(len(nodes)), True, key=lambda index: refused(index + 1) is not None)
    return f"layer {title(nodes[first])}: {refused(first + 1)}; choose another precision"


def _beginning(features: bytes, count: int) -> bytes:
    """The graph up to its node of that number, whose outputs are all that nothing reads."""
    model = onnx.load_from_string(features)
    graph = model.graph
    del graph.node[count:]
    del graph.output[:]
    read = set(names_read(graph.node))
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in computed_names(graph) if name not in read)
    serialised: bytes = model.SerializeToString()
    return serialised
