"""Whether the tensors of a bundle are those that its manifest promises."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flawline.runtime.bundle.manifest import (
    AnyManifest,
    ClassifierManifest,
    Manifest,
    ManifestOfKinds,
    PadimManifest,
    ReconstructionManifest,
    score_tensor,
)
from flawline.runtime.errors import BundleError
from flawline.runtime.kernels import Gaussians, packed_size
from flawline.runtime.kernels.packing import padded_rows

Array = NDArray[Any]

_CHUNK = 1 << 16
_EXPONENTS: dict[int, tuple[type[np.unsignedinteger[Any]], int]] = {
    2: (np.uint16, 0x7C00),
    4: (np.uint32, 0x7F80_0000),
    8: (np.uint64, 0x7FF0_0000_0000_0000),
}


@dataclass(frozen=True, eq=False)
class Golden:
    """A frame whose score is known, by which a device proves itself.

    Attributes:
        frame: uint8 (height, width) grey or (height, width, 3) RGB.
        score: What the detector gave when the bundle was made.
        map: float32 (map height, map width), the anomaly map it gave.
    """

    frame: NDArray[np.uint8]
    score: float
    map: NDArray[np.float32]


_FACTORS = {"fp16": np.float16, "fp32": np.float32, "int8": np.int8}


def gaussians(manifest: PadimManifest | ClassifierManifest, tensors: Mapping[str, Array]) -> Gaussians:
    """The Gaussians that the statistics of a bundle hold."""
    return Gaussians(
        means=tensors["means"],
        factors=tensors["factors"],
        scales=tensors["scales"],
        assignment=tensors["assignment"],
        row_scales=tensors.get("row_scales"),
        rank=manifest.gaussian.rank,
    )


def gaussian_tensors(gaussians: Gaussians) -> dict[str, Array]:
    """The tensors that hold Gaussians; the inverse of `gaussians`."""
    tensors: dict[str, Array] = {
        "factors": gaussians.factors,
        "means": gaussians.means,
        "scales": gaussians.scales,
        "assignment": gaussians.assignment,
    }
    return tensors if gaussians.row_scales is None else tensors | {"row_scales": gaussians.row_scales}


def check_statistics(manifest: AnyManifest, tensors: Mapping[str, Array], where: str) -> None:
    """Checks names, dtypes, shapes and values of the statistics.

    Args:
        manifest: What they must agree with.
        tensors: Arrays by name.
        where: Name of the file for error messages.

    Raises:
        BundleError: A tensor is missing, unknown, of another dtype or shape, not finite or out of range.
    """
    expected = _score_tensors(manifest)
    if not isinstance(manifest, ReconstructionManifest):
        expected |= _gaussian_tensors(manifest)
    if isinstance(manifest, ClassifierManifest):
        expected["class_thresholds"] = (np.float32, (manifest.gaussian.count,))
    _check_shapes(tensors, expected, where)
    _check_finite(tensors, where)
    if not isinstance(manifest, ReconstructionManifest):
        _check_values(manifest, tensors, where)
    if isinstance(manifest, ClassifierManifest):
        _check_classes(tensors, where)
    for name in sorted(expected):
        scores = tensors[name]
        if name.startswith("calibration_scores") and np.any(scores[1:] < scores[:-1]):
            raise BundleError(f"{where}: tensor {name} is not in ascending order")


def _gaussian_tensors(manifest: PadimManifest | ClassifierManifest) -> dict[str, tuple[Any, tuple[int, ...]]]:
    gaussian, projection = manifest.gaussian, manifest.projection
    groups, components, d = gaussian.count, gaussian.components, projection.dimension
    size = packed_size(d, gaussian.rank)
    expected: dict[str, tuple[Any, tuple[int, ...]]] = {
        "means": (np.float32, (groups, components, d)),
        "factors": (_FACTORS[gaussian.factors], (groups, components, size)),
        "scales": (np.float32, (groups, components)),
        "assignment": (np.int32, (groups if gaussian.tie == "class" else manifest.positions,)),
    }
    if gaussian.factors == "int8":
        expected["row_scales"] = (np.float16, (groups, components, padded_rows(d, gaussian.rank)))
    if projection.kind in ("gaussian", "orthogonal"):
        expected["projection"] = (np.float32, (d, projection.input_dimension))
    elif projection.kind == "sparse":
        expected["projection"] = (np.int8, (d, projection.input_dimension))
    elif projection.kind == "select":
        expected["projection"] = (np.int32, (d,))
    return expected


def _score_tensors(manifest: Manifest) -> dict[str, tuple[Any, tuple[int, ...]]]:
    shape = (manifest.threshold.calibration_images,)
    names = [manifest.score_tensor]
    if isinstance(manifest, ManifestOfKinds):
        names = [score_tensor(kind) for kind in manifest.kinds]
    return dict.fromkeys(names, (np.float32, shape))


def check_golden(manifest: Manifest, tensors: Mapping[str, Array], where: str) -> list[Golden]:
    """Checks the golden frames and puts each beside its score and map.

    Args:
        manifest: What they must agree with.
        tensors: Arrays by name: "frame.0", "map.0", ..., "scores".
        where: Name of the file for error messages.

    Returns:
        The golden frames, at least one, as views of the tensors.

    Raises:
        BundleError: A tensor is missing, unknown, of another dtype or shape, or not finite.
    """
    scores = tensors.get("scores")
    if scores is None or scores.ndim != 1:
        raise BundleError(f"{where} lacks the tensor scores of one axis; expected a score for every golden frame")
    channels = manifest.input.channels
    window = (manifest.input.height, manifest.input.width)
    expected: dict[str, tuple[Any, tuple[int, ...]]] = {"scores": (np.float32, scores.shape)}
    for index in range(scores.size):
        frame = tensors.get(f"frame.{index}")
        if frame is None or frame.shape[2:] != (() if channels == 1 else (3,)) or frame.ndim < 2:
            kind = "(height, width)" if channels == 1 else "(height, width, 3)"
            got = "missing" if frame is None else f"of shape {frame.shape}"
            raise BundleError(f"{where}: tensor frame.{index} is {got}; expected {kind}, as the manifest's input says")
        if manifest.web is not None and frame.shape[:2] != window:
            raise BundleError(
                f"{where}: tensor frame.{index} is {frame.shape[0]} x {frame.shape[1]}; expected a window of a web, "
                f"{window[0]} x {window[1]}, as the manifest's input says"
            )
        expected[f"frame.{index}"] = (np.uint8, frame.shape)
        expected[f"map.{index}"] = (np.float32, (manifest.map.height, manifest.map.width))
    _check_shapes(tensors, expected, where)
    _check_finite(tensors, where)
    return [
        Golden(tensors[f"frame.{index}"], float(score), tensors[f"map.{index}"]) for index, score in enumerate(scores)
    ]


def golden_tensors(golden: Sequence[Golden]) -> dict[str, Array]:
    """The tensors that hold golden frames; the inverse of `check_golden`."""
    tensors: dict[str, Array] = {"scores": np.array([item.score for item in golden], np.float32)}
    for index, item in enumerate(golden):
        tensors[f"frame.{index}"] = item.frame
        tensors[f"map.{index}"] = item.map
    return tensors


def all_finite(array: Array) -> bool:
    """Whether a floating-point array holds no NaN and no infinity.

    Looks at exponent bits, a cache-sized piece at a time: several times faster than `numpy.isfinite` on fp16, and
    no temporary of the array's size.

    Args:
        array: C-contiguous floating-point array of any shape.
    """
    kind, exponent = _EXPONENTS[array.dtype.itemsize]
    bits, mask = array.reshape(-1).view(kind), kind(exponent)
    return all(int((bits[i : i + _CHUNK] & mask).max()) != exponent for i in range(0, bits.size, _CHUNK))


def _check_shapes(
    tensors: Mapping[str, Array], expected: Mapping[str, tuple[Any, tuple[int, ...]]], where: str
) -> None:
    missing = sorted(expected.keys() - tensors.keys())
    if missing:
        raise BundleError(f"{where} lacks the tensor {missing[0]}; expected {', '.join(sorted(expected))}")
    unknown = sorted(tensors.keys() - expected.keys())
    if unknown:
        raise BundleError(f"{where} holds the tensor {unknown[0]}; the manifest promises {', '.join(sorted(expected))}")
    for name, (dtype, shape) in expected.items():
        array = tensors[name]
        if array.dtype != dtype or array.shape != shape:
            promised = f"{np.dtype(dtype)} {shape}"
            raise BundleError(
                f"{where}: tensor {name} is {array.dtype} {array.shape}; the manifest promises {promised}"
            )


def _check_finite(tensors: Mapping[str, Array], where: str) -> None:
    for name, array in tensors.items():
        if array.dtype.kind == "f" and not all_finite(np.ascontiguousarray(array)):
            raise BundleError(f"{where}: tensor {name} holds NaN or infinity; expected finite numbers")


def _check_classes(tensors: Mapping[str, Array], where: str) -> None:
    thresholds, assignment = tensors["class_thresholds"], tensors["assignment"]
    if thresholds.min() <= 0:
        raise BundleError(f"{where}: tensor class_thresholds holds {thresholds.min()}; expected numbers above 0")
    if not np.array_equal(assignment, np.arange(assignment.size)):
        raise BundleError(f"{where}: tensor assignment does not name the Gaussians in the order of their classes")
    head = tensors.get(score_tensor("head"))
    if head is not None and (head.min() < 0 or head.max() > 1):
        raise BundleError(f"{where}: tensor {score_tensor('head')} is not of probabilities; expected numbers of 0 to 1")


def _check_values(manifest: PadimManifest | ClassifierManifest, tensors: Mapping[str, Array], where: str) -> None:
    if tensors["scales"].min() <= 0:
        raise BundleError(f"{where}: tensor scales holds {tensors['scales'].min()}; expected numbers above 0")
    if "row_scales" in tensors and tensors["row_scales"].min() < 0:
        raise BundleError(f"{where}: tensor row_scales holds {tensors['row_scales'].min()}; expected numbers from 0 on")
    assignment, count = tensors["assignment"], manifest.gaussian.count
    if assignment.min() < 0 or assignment.max() >= count:
        worst = assignment.min() if assignment.min() < 0 else assignment.max()
        raise BundleError(f"{where}: tensor assignment names Gaussian {worst}; expected 0 to {count - 1}")
    kind = manifest.projection.kind
    if kind == "sparse" and np.any(np.abs(tensors["projection"].astype(np.int16)) > 1):
        raise BundleError(f"{where}: tensor projection of kind sparse holds numbers other than -1, 0 and 1")
    if kind == "select":
        chosen, depth = tensors["projection"], manifest.projection.input_dimension
        if chosen.min() < 0 or chosen.max() >= depth:
            raise BundleError(f"{where}: tensor projection selects channels outside 0 to {depth - 1}")
        if np.unique(chosen).size != chosen.size:
            raise BundleError(f"{where}: tensor projection selects a channel twice")
