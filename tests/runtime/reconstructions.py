"""Bundles of reconstruction detectors: principal components of random images, with a saliency that can be told by hand."""

from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from flawline.runtime import bundle
from flawline.runtime.kernels import proximally_sensitive_error

SIZE = (24, 20)
KINDS = ("error", "pse", "saliency", "saliency-squared")
THRESHOLDS = {"error": 90.0, "pse": 30.0, "saliency": 0.5, "saliency-squared": 0.25}
SIGMA_PX = 1.5
SALIENCY_SCALE = np.float32(1 / 512)


def graph(*, channels: int = 1, layout: str = "nhwc", saliency: bool = True, size: tuple[int, int] = SIZE) -> bytes:
    """An ONNX file that rebuilds a frame as 3/4 of itself and 16, and calls 1/512 of its last channel its saliency."""
    axes = ("N", *size, channels) if layout == "nhwc" else ("N", channels, *size)
    constants = {"share": np.float32(0.75), "offset": np.float32(16), "scale": SALIENCY_SCALE}
    nodes = [
        helper.make_node("Cast", ["frame"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["numbers"], ["planes"], perm=[0, 3, 1, 2] if layout == "nhwc" else [0, 1, 2, 3]),
        helper.make_node("Mul", ["planes", "share"], ["darker"]),
        helper.make_node("Add", ["darker", "offset"], ["reconstruction"]),
    ]
    outputs = [helper.make_tensor_value_info("reconstruction", TensorProto.FLOAT, ("N", channels, *size))]
    if saliency:
        constants["last"] = np.array([channels - 1])
        nodes += [
            helper.make_node("Gather", ["planes", "last"], ["plane"], axis=1),
            helper.make_node("Mul", ["plane", "scale"], ["saliency"]),
        ]
        outputs.append(helper.make_tensor_value_info("saliency", TensorProto.FLOAT, ("N", 1, *size)))
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "reconstruction",
            [helper.make_tensor_value_info("frame", TensorProto.UINT8, axes)],
            outputs,
            initializer=[numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def expected_map(frame: np.ndarray, kind: str) -> np.ndarray:
    """float32 (height, width): the anomaly map of a uint8 frame of the graph's size, (height, width) or RGB."""
    planes = np.ascontiguousarray(np.atleast_3d(frame).transpose(2, 0, 1))[None]
    if kind.startswith("saliency"):
        saliency = planes[0, -1] * SALIENCY_SCALE
        return saliency if kind == "saliency" else saliency**2
    rebuilt = (planes * np.float32(0.75) + np.float32(16)).astype(np.float32)
    sigma = SIGMA_PX if kind == "pse" else 0.0
    return proximally_sensitive_error(planes, rebuilt, sigma, implementation="reference").map[0]


def random_frames(count: int, *, channels: int = 1, size: tuple[int, int] = SIZE, seed: int = 5) -> list[np.ndarray]:
    """uint8 (height, width) or (height, width, 3) each."""
    shape = size if channels == 1 else (*size, channels)
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 256, shape, np.uint8) for _ in range(count)]


def manifest(
    *, channels: int = 1, layout: str = "nhwc", kinds: tuple[str, ...] = KINDS, size: tuple[int, int] = SIZE
) -> bundle.ReconstructionManifest:
    """Of an autoencoder whose first kind of map is the default."""
    sides = {"height": size[0], "width": size[1]}
    names = ["reconstruction"] + ["saliency"] * any(kind.startswith("saliency") for kind in kinds)
    return bundle.ReconstructionManifest(
        input=bundle.Input(
            channels=channels,
            layout=layout,
            interpolation="area",
            source_height=size[0],
            source_width=size[1],
            **sides,
        ),
        network=bundle.Network(
            name="convolutional",
            layers=["reconstruction"],
            weights=bundle.Weights(origin="fitted on the good images", sha256="0" * 64, random=False),
            precision="fp32",
            input="frame",
            outputs=[bundle.Output(name=name, **sides) for name in names],
            total_stride=1,
        ),
        map=bundle.Map(upsampling="nearest", sigma=SIGMA_PX, **sides),
        reconstruction=bundle.Reconstruction(
            kind="autoencoder",
            architecture="convolutional",
            components=16,
            maps={kind: bundle.MapThreshold(score=THRESHOLDS[kind]) for kind in kinds},
            map=kinds[0],
            normalised=True,
            loss="mse",
            epochs=12,
            best_epoch=9,
            chosen="given",
        ),
        threshold=bundle.Threshold(false_reject_rate=0.25, score=THRESHOLDS[kinds[0]], calibration_images=4),
        fit=bundle.Fit(images=16, calibration_images=4, group_by=None, seed=2, sources_sha256="1" * 64),
        parity=None,
        golden=bundle.GoldenFacts(relative_tolerance=1e-3),
    )


def statistics(kinds: tuple[str, ...] = KINDS) -> dict[str, np.ndarray]:
    """Scores up to the threshold of each kind."""
    return {
        bundle.score_tensor(kind): np.linspace(0.25, 1, 4, dtype=np.float32) * np.float32(THRESHOLDS[kind])
        for kind in kinds
    }


def reconstruction_bundle(
    path: Path,
    *,
    channels: int = 1,
    layout: str = "nhwc",
    kinds: tuple[str, ...] = KINDS,
    size: tuple[int, int] = SIZE,
    features: bytes | None = None,
    **sections: Mapping[str, object],
) -> bundle.Bundle:
    """A bundle whose golden frames are random: `reconstruction_bundle(path, golden={"relative_tolerance": 0.5})`."""
    facts = manifest(channels=channels, layout=layout, kinds=kinds, size=size)
    changed = {name: msgspec.structs.replace(getattr(facts, name), **fields) for name, fields in sections.items()}
    golden = []
    for frame in random_frames(2, channels=channels, size=size):
        anomaly_map = expected_map(frame, kinds[0])
        golden.append(bundle.Golden(frame=frame, score=float(anomaly_map.max()), map=anomaly_map))
    own = features or graph(channels=channels, layout=layout, saliency=len(facts.network.outputs) > 1, size=size)
    return bundle.write(path, msgspec.structs.replace(facts, **changed), own, statistics(kinds), golden)
