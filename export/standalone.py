"""A whole detector as one ordinary ONNX file, for runtimes that know nothing of Flawline."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flawline import __version__
from flawline.export import standalone_parity
from flawline.export.converting import running
from flawline.export.factor_blocks import block_elements
from flawline.export.feature_graph import BATCH
from flawline.export.onnx_file import MOST_BYTES, is_network
from flawline.export.scoring_nodes import ScoringNodes
from flawline.export.standalone_features import PREFIX, embedded_features
from flawline.runtime import files, memory
from flawline.runtime.bundle import contents
from flawline.runtime.errors import BundleError, InputError
from flawline.runtime.extras import LazyModule
from flawline.runtime.precisions import ENGINES, PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import onnx
    from onnx import GraphProto, ModelProto

    from flawline.runtime.bundle import Bundle
    from flawline.runtime.bundle.manifest import PadimManifest
else:
    onnx = LazyModule("onnx", "pip install 'flawline[fit]'")

Frame = npt.NDArray[np.uint8]

_NODES_BYTES = 1 << 16
_FACTOR_BYTES = {"fp32": 4, "fp16": 2, "int8": 2}
# Measured: 4.2 to 5.2 times its bytes, for the model and its copies while it is checked, then for the engine's.
_COPIES = 6


def write_standalone(
    bundle: Bundle, path: Path, frames: Iterable[Frame] = (), *, threads: int = 1
) -> dict[str, str | float]:
    """Writes a bundle as one ONNX file, after the parity gate.

    Args:
        bundle: An open bundle, in the precision that is wanted.
        path: File to write; an ONNX file of that name is replaced.
        frames: Frames for the gate, besides the golden ones of the bundle.
        threads: Threads of the engines that the gate runs.

    Returns:
        What the gate found.

    Raises:
        InputError: As for `compose_standalone`, or the file cannot be written, or its name is that of another file, or a frame
            is not what the bundle takes.
        ParityError: The file would not score like the bundle; nothing is written.
        ResourceError: Memory or disk would not suffice; nothing is left behind.
        MissingExtraError: onnx or onnxruntime is not installed.
    """
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"{path}: expected the name of a file, in a folder that exists and can be written to")
    if path.exists() and not is_network(path):
        raise InputError(
            f"{path} exists and is no ONNX file; expected a new name, or an ONNX file to replace: choose another --out, or "
            "remove it first"
        )
    model = compose_standalone(bundle)
    with running(bundle.path):
        report = standalone_parity.check(model, bundle, frames, threads=threads)
    files.write_whole(path, model)
    return report


def compose_standalone(bundle: Bundle) -> bytes:
    """Composes the feature graph of a bundle and its statistics into one ONNX file.

    Its input is the uint8 `frame` of the feature graph, already of the network's size. Its outputs are `score`, float32
    (N,), `map`, float32 (N, h, w), and `verdict`, bool (N,), true where the score is above the threshold, or NaN. The
    batch N is as free as that of the feature graph.

    Args:
        bundle: An open bundle, in the precision that is wanted.

    Returns:
        The file, the same bytes for the same bundle and versions of Flawline and onnx.

    Raises:
        InputError: The file would be too large for its format, the network's arithmetic is one of a certain engine, or the
            bundle is for a web, whose scores come from more than a frame.
        BundleError: The feature graph or the assignment of Gaussians is not what the manifest promises.
        ResourceError: Too little memory.
        MissingExtraError: onnx is not installed.
    """
    manifest = bundle.padim
    if manifest.web is not None:
        raise InputError(
            f"{bundle.path} is for a web, whose map is stitched and smoothed across windows; expected one for pictures"
        )
    _require_portable(manifest)
    size = standalone_bytes(bundle)
    _require_size(manifest, size)
    memory.require(
        _COPIES * size, f"a standalone file of {size / 1e6:.0f} MB", "fit with a lower --dim, or --tie column or global"
    )
    model = embedded_features(bundle)
    _add_scoring(model, bundle)
    _declare_outputs(model.graph, (manifest.map.height, manifest.map.width))
    model.producer_name, model.producer_version = "flawline", __version__
    onnx.helper.set_model_props(model, _metadata(bundle))
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        reason = " ".join(str(error).split())
        raise BundleError(f"{bundle.path}: the feature graph is not what the manifest says: {reason}") from error
    return bytes(model.SerializeToString(deterministic=True))


def standalone_bytes(bundle: Bundle) -> int:
    """Bytes of the standalone file of a bundle, from shapes alone, rounded up by about 64 KiB."""
    manifest = bundle.padim
    gaussian, d = manifest.gaussian, manifest.projection.dimension
    size = (manifest.map.height, manifest.map.width)
    # Of upsampling and smoothing.
    matrices = sum(side * side for side in size) + sum(
        size[0] * output.height + size[1] * output.width for output in manifest.network.outputs
    )
    factor = block_elements(d, gaussian.rank) * _FACTOR_BYTES[gaussian.factors]
    row_scales = 2 * (gaussian.rank or d) if gaussian.factors == "int8" else 0
    gaussians = gaussian.count * gaussian.components * (factor + row_scales + 4 * d + 4)
    return gaussians + 4 * matrices + len(bundle.features) + _NODES_BYTES


def _require_portable(manifest: PadimManifest) -> None:
    precision = manifest.network.precision
    if "onnxruntime" not in ENGINES[precision]:
        others = ", ".join(name for name in PRECISIONS if "onnxruntime" in ENGINES[name])
        raise InputError(
            f"the statistics of {precision} belong to the arithmetic of {' or '.join(ENGINES[precision])}, which no other "
            f"runtime repeats; choose one of the precisions {others}"
        )


def _require_size(manifest: PadimManifest, size: int) -> None:
    if size > MOST_BYTES:
        gaussian, d = manifest.gaussian, manifest.projection.dimension
        raise InputError(
            f"a standalone file of {size / 1e9:.1f} GB for {gaussian.count * gaussian.components} Gaussians of {d} "
            f"dimensions; an ONNX file holds at most {MOST_BYTES / 1e9:.1f} GB: fit with a lower --dim, or "
            "--tie column or global"
        )


def _add_scoring(model: ModelProto, bundle: Bundle) -> None:
    """Adds the nodes and constants from the feature maps on."""
    manifest = bundle.padim
    gaussians = contents.gaussians(manifest, bundle.statistics)
    if not np.array_equal(gaussians.assignment, np.arange(gaussians.outputs) % gaussians.count):
        raise BundleError(
            f"{bundle.path}: tensor assignment is not what the manifest's tie by {manifest.gaussian.tie} means; "
            "fit the bundle again"
        )
    size = (manifest.map.height, manifest.map.width)
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    nodes = ScoringNodes(opset, "detector/")
    maps = [(f"{PREFIX}{output.name}", output) for output in manifest.network.outputs]
    embeddings = nodes.embeddings(maps, size, manifest.map.upsampling)
    distances = nodes.distances(embeddings, size, gaussians)
    nodes.outputs(distances, size, manifest.map.sigma, manifest.threshold.score)
    model.graph.node.extend(nodes.nodes)
    model.graph.initializer.extend(nodes.constants)


def _declare_outputs(graph: GraphProto, size: tuple[int, int]) -> None:
    batch = graph.input[0].type.tensor_type.shape.dim[0]
    frames = batch.dim_value or batch.dim_param or BATCH
    kinds = onnx.TensorProto
    outputs = {
        "score": (kinds.FLOAT, [frames]),
        "map": (kinds.FLOAT, [frames, *size]),
        "verdict": (kinds.BOOL, [frames]),
    }
    del graph.output[:]
    graph.output.extend(onnx.helper.make_tensor_value_info(name, *facts) for name, facts in outputs.items())
    graph.name = "detector"


def _metadata(bundle: Bundle) -> dict[str, str]:
    """What the file says of itself; see docs/standalone.md."""
    manifest = bundle.padim
    frame, threshold = manifest.input, manifest.threshold
    facts = {
        "bundle_sha256": bundle.hash,
        "version": __version__,
        "network": manifest.network.name,
        "precision": manifest.network.precision,
        "input_height": frame.height,
        "input_width": frame.width,
        "input_layout": frame.layout,
        "input_mode": "grey" if frame.channels == 1 else "RGB",
        "interpolation": frame.interpolation,
        "threshold": threshold.score,
        "false_reject_rate": threshold.false_reject_rate,
        "calibration_images": threshold.calibration_images,
    }
    return {f"flawline.{name}": str(value) for name, value in facts.items()}
