"""Bundles of classifiers: a network whose features, logits and second head can be told by hand."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from flawline.runtime import bundle, kernels

SIZE = (16, 20)
BANDS = 4
CLASSES = ("bolt", "nut", "washer")
THRESHOLDS = {"mahalanobis": 1.25, "head": 0.5}
CLASS_THRESHOLDS = np.array([2, 1.75, 1.5], np.float32)
HEAD_BIAS = -6.0
_SCALE = np.float32(1 / 32)


def weights() -> dict[str, np.ndarray]:
    """What makes logits, float32 (3, 4), and the second head, float32 (1, 4), of features."""
    by_band = np.random.default_rng(4).normal(0, 1, (len(CLASSES), BANDS))
    return {
        # Of what the bands differ in, so that brightness alone makes no class.
        "logits": (by_band - by_band.mean(axis=1, keepdims=True)).astype(np.float32),
        "head": np.full((1, BANDS), 0.5, np.float32),
    }


def graph(*, channels: int = 1, layout: str = "nhwc", head: bool = True) -> bytes:
    """An ONNX file whose features are the mean brightness of four horizontal bands, in 32 grey levels."""
    axes = ("N", *SIZE, channels) if layout == "nhwc" else ("N", channels, *SIZE)
    of = weights()
    constants = {
        "scale": _SCALE,
        "to_logits": of["logits"][..., None, None],
        "to_head": -of["head"][..., None, None],
        "bias": np.array([-HEAD_BIAS], np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["frame"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["numbers"], ["planes"], perm=[0, 3, 1, 2] if layout == "nhwc" else [0, 1, 2, 3]),
        helper.make_node("ReduceMean", ["planes"], ["grey"], axes=[1], keepdims=1),
        helper.make_node(
            "AveragePool",
            ["grey"],
            ["bands"],
            kernel_shape=[SIZE[0] // BANDS, SIZE[1]],
            strides=[SIZE[0] // BANDS, SIZE[1]],
        ),
        helper.make_node("Transpose", ["bands"], ["channels"], perm=[0, 2, 1, 3]),
        helper.make_node("Mul", ["channels", "scale"], ["features"]),
        helper.make_node("Conv", ["features", "to_logits"], ["logits"]),
        helper.make_node("Conv", ["features", "to_head", "bias"], ["head"]),
    ]
    depths = {"features": BANDS, "logits": len(CLASSES)} | ({"head": 1} if head else {})
    model = helper.make_model(
        helper.make_graph(
            nodes if head else nodes[:-1],
            "classifier",
            [helper.make_tensor_value_info("frame", TensorProto.UINT8, axes)],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, ("N", depth, 1, 1))
                for name, depth in depths.items()
            ],
            initializer=[numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def features(frame: np.ndarray) -> np.ndarray:
    """float64 (4,) of a uint8 frame of the graph's size, (height, width) or RGB."""
    return frame.reshape(BANDS, -1).astype(np.float64).mean(axis=1) * float(_SCALE)


def gaussians_of(seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Means, float64 (3, 4), and covariances, float64 (3, 4, 4), of the features of each class."""
    generator = np.random.default_rng(seed)
    samples = generator.normal(0, 1, (len(CLASSES), 40, BANDS))
    return generator.uniform(3, 5, (len(CLASSES), BANDS)), np.einsum("cnk,cnl->ckl", samples, samples) / 40


def distances(frame: np.ndarray) -> np.ndarray:
    """float64 (3,): the Mahalanobis distance of a frame to each class, by the definition."""
    means, covariances = gaussians_of()
    centred = features(frame) - means
    return np.sqrt(np.einsum("ck,ck->c", centred, np.linalg.solve(covariances, centred[..., None])[..., 0]))


def probabilities(frame: np.ndarray) -> np.ndarray:
    """float64 (3,): the softmax of the logits."""
    logits = weights()["logits"].astype(np.float64) @ features(frame)
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()


def normal(frame: np.ndarray) -> float:
    """The probability of being normal by the second head."""
    return float(1 / (1 + np.exp(-(weights()["head"][0] @ features(frame) + HEAD_BIAS))))


def expected_score(frame: np.ndarray, kind: str = "mahalanobis") -> float:
    """The score of a frame, by the definition."""
    if kind == "head":
        return 1 - normal(frame)
    return float((distances(frame) / CLASS_THRESHOLDS).min())


def random_frames(count: int, *, channels: int = 1, seed: int = 5) -> list[np.ndarray]:
    """uint8 (height, width) or (height, width, 3) each, with bands of different brightness."""
    generator = np.random.default_rng(seed)
    frames = []
    for _ in range(count):
        levels = np.repeat(generator.uniform(70, 180, BANDS), SIZE[0] // BANDS)[:, None, None]
        frame = np.clip(levels + generator.normal(0, 10, (*SIZE, channels)), 0, 255).astype(np.uint8)
        frames.append(frame[..., 0] if channels == 1 else frame)
    return frames


def manifest(
    *,
    channels: int = 1,
    layout: str = "nhwc",
    head: bool = True,
    factors: str = "fp32",
    precision: str = "fp32",
) -> bundle.ClassifierManifest:
    """Of a classifier that was trained with the center loss."""
    kinds = ("mahalanobis", "head") if head else ("mahalanobis",)
    eight_bits = bundle.Quantisation(calibration_images=8) if precision.startswith("int8") else None
    return bundle.ClassifierManifest(
        input=bundle.Input(
            height=SIZE[0],
            width=SIZE[1],
            channels=channels,
            layout=layout,
            interpolation="area",
            source_height=SIZE[0],
            source_width=SIZE[1],
        ),
        network=bundle.Network(
            name="lenet",
            layers=["fc2"],
            weights=bundle.Weights(origin="trained on the images", sha256="0" * 64, random=False),
            precision=precision,
            quantisation=eight_bits,
            input="frame",
            outputs=[
                bundle.Output(name=name, height=1, width=1) for name in ("features", "logits", "head")[: 2 + head]
            ],
            total_stride=1,
        ),
        projection=bundle.Projection(
            kind="none", seed=0, input_dimension=BANDS, dimension=BANDS, generator="philox4x64"
        ),
        map=bundle.Map(height=1, width=1, upsampling="nearest", sigma=0.0),
        gaussian=bundle.Gaussian(
            tie="class",
            count=len(CLASSES),
            components=1,
            epsilon=0.01,
            epsilon_relative=True,
            shrinkage=None,
            factors=factors,
            block_rows=8,
        ),
        classifier=bundle.Classifier(
            classes=list(CLASSES),
            percentile=97.5,
            scores={kind: bundle.MapThreshold(score=THRESHOLDS[kind]) for kind in kinds},
            score="mahalanobis",
            loss="cross-entropy and center loss",
            center_weight=0.1,
            epochs=12,
            best_epoch=9,
            head_images=30 if head else None,
        ),
        threshold=bundle.Threshold(false_reject_rate=0.25, score=THRESHOLDS["mahalanobis"], calibration_images=4),
        fit=bundle.Fit(images=60, calibration_images=4, group_by=None, seed=2, sources_sha256="1" * 64),
        parity=None,
        golden=bundle.GoldenFacts(relative_tolerance=1e-3),
    )


def statistics(*, head: bool = True, factors: str = "fp32") -> dict[str, np.ndarray]:
    """Gaussians of each class, their thresholds, and calibration scores up to the threshold of each kind of score."""
    means, covariances = gaussians_of()
    whitening = np.linalg.inv(np.linalg.cholesky(covariances)).astype(np.float32)[:, None]
    scores = {
        bundle.score_tensor(kind): np.linspace(0.25, 1, 4, dtype=np.float32) * np.float32(THRESHOLDS[kind])
        for kind in ("mahalanobis", "head")[: 1 + head]
    }
    return scores | {
        "means": means.astype(np.float32)[:, None],
        "factors": kernels.pack(whitening, {"fp16": np.float16, "fp32": np.float32}[factors]),
        "scales": np.ones((len(CLASSES), 1), np.float32),
        "assignment": np.arange(len(CLASSES), dtype=np.int32),
        "class_thresholds": CLASS_THRESHOLDS,
    }


def golden(channels: int = 1, kind: str = "mahalanobis") -> list[bundle.Golden]:
    """Two frames with their scores."""
    scored = [(frame, np.float32(expected_score(frame, kind))) for frame in random_frames(2, channels=channels)]
    return [bundle.Golden(frame, float(score), np.full((1, 1), score, np.float32)) for frame, score in scored]


def classifier_bundle(
    path: Path,
    *,
    channels: int = 1,
    layout: str = "nhwc",
    head: bool = True,
    factors: str = "fp32",
    features: bytes | None = None,
    tensors: Mapping[str, np.ndarray] | None = None,
    **sections: Mapping[str, Any],
) -> bundle.Bundle:
    """A bundle whose golden frames are random: `classifier_bundle(path, golden={"relative_tolerance": 0.5})`."""
    facts = manifest(channels=channels, layout=layout, head=head, factors=factors)
    changed = {name: msgspec.structs.replace(getattr(facts, name), **fields) for name, fields in sections.items()}
    return bundle.write(
        path,
        msgspec.structs.replace(facts, **changed),
        features or graph(channels=channels, layout=layout, head=head),
        statistics(head=head, factors=factors) | (tensors or {}),
        golden(channels),
    )
