"""Small bundles of random statistics, made by the real writer."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from flawline.runtime import bundle, kernels

FEATURES = bytes(range(256)) * 2


@dataclass(frozen=True)
class Parts:
    """What a bundle is written from."""

    manifest: bundle.PadimManifest
    features: bytes
    statistics: Mapping[str, np.ndarray]
    golden: list[bundle.Golden]

    def write(self, path: Path) -> bundle.Bundle:
        return bundle.write(path, self.manifest, self.features, self.statistics, self.golden)

    def with_manifest(self, **sections: Any) -> "Parts":
        """Parts whose manifest differs: `with_manifest(map={"sigma": 2.0})`."""
        changed = {
            name: msgspec.structs.replace(getattr(self.manifest, name), **value) if isinstance(value, dict) else value
            for name, value in sections.items()
        }
        return replace(self, manifest=msgspec.structs.replace(self.manifest, **changed))

    def with_statistics(self, **tensors: np.ndarray | None) -> "Parts":
        """Parts with tensors put in place of others, or left out where None."""
        merged = {**self.statistics, **tensors}
        return replace(self, statistics={name: array for name, array in merged.items() if array is not None})


def make_parts(
    *,
    tie: str = "position",
    kind: str = "gaussian",
    channels: int = 1,
    factors: str = "fp16",
    components: int = 1,
    size: tuple[int, int] = (2, 3),
    depth: int = 12,
    dimension: int = 5,
    seed: int = 0,
) -> Parts:
    """Random symmetric positive definite statistics and everything around them."""
    generator = np.random.Generator(np.random.PCG64(seed))
    height, width = size
    if kind == "none":
        dimension = depth
    count = {"position": height * width, "column": width, "global": 1}[tie]
    assignment = {
        "position": np.arange(height * width),
        "column": np.tile(np.arange(width), height),
        "global": np.zeros(height * width),
    }[tie]
    samples = generator.standard_normal((count, components, 4 * dimension, dimension))
    covariance = np.einsum("gknd,gkne->gkde", samples, samples) / (4 * dimension) + 0.01 * np.eye(dimension)
    whitening = np.linalg.inv(np.linalg.cholesky(covariance))
    precision = np.float16 if factors == "fp16" else np.float32
    scores = np.sort(generator.random(7)).astype(np.float32)
    statistics = {
        "means": generator.standard_normal((count, components, dimension)).astype(np.float32),
        "factors": kernels.pack(whitening.astype(np.float32), precision),
        "scales": np.ones((count, components), np.float32),
        "assignment": assignment.astype(np.int32),
        "calibration_scores": scores,
    }
    statistics.update(_projection(kind, dimension, depth, generator))
    manifest = bundle.PadimManifest(
        input=bundle.Input(
            height=16, width=24, channels=channels, interpolation="area", source_height=40, source_width=60
        ),
        network=bundle.Network(
            name="tiny",
            layers=["one", "two"],
            weights=bundle.Weights(origin="random", sha256="0" * 64, random=True),
            precision="fp32",
            input="frame",
            outputs=[
                bundle.Output(name="features_0", height=height, width=width),
                bundle.Output(name="features_1", height=1, width=1),
            ],
            total_stride=16,
        ),
        projection=bundle.Projection(
            kind=kind, seed=7, input_dimension=depth, dimension=dimension, generator="philox4x64"
        ),
        map=bundle.Map(height=height, width=width, upsampling="bilinear", sigma=1.5),
        gaussian=bundle.Gaussian(
            tie=tie,
            count=count,
            components=components,
            epsilon=0.01,
            epsilon_relative=True,
            shrinkage=None,
            factors=factors,
            block_rows=8,
        ),
        threshold=bundle.Threshold(false_reject_rate=0.2, score=float(scores[-1]), calibration_images=scores.size),
        fit=bundle.Fit(
            images=4 * dimension, calibration_images=scores.size, group_by=None, seed=3, sources_sha256="1" * 64
        ),
        parity={"reference": "float64", "max_relative_error": 1e-4},
        golden=bundle.GoldenFacts(relative_tolerance=1e-3),
    )
    frame_shape = (6, 8) if channels == 1 else (6, 8, 3)
    golden = [
        bundle.Golden(
            frame=generator.integers(0, 256, frame_shape, np.uint8),
            score=float(np.float32(index + 0.5)),
            map=generator.random((height, width), np.float32),
        )
        for index in range(2)
    ]
    return Parts(manifest, FEATURES, statistics, golden)


def _projection(kind: str, dimension: int, depth: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    if kind == "none":
        return {}
    if kind == "sparse":
        return {"projection": generator.integers(-1, 2, (dimension, depth)).astype(np.int8)}
    if kind == "select":
        return {"projection": generator.permutation(depth)[:dimension].astype(np.int32)}
    return {"projection": generator.standard_normal((dimension, depth)).astype(np.float32)}


@pytest.fixture
def parts() -> Callable[..., Parts]:
    return make_parts


@pytest.fixture
def written(tmp_path: Path) -> bundle.Bundle:
    """A small position-tied bundle on disk."""
    return make_parts().write(tmp_path / "bundle")


def reseal(folder: Path) -> None:
    """Makes sizes and hashes right again after a file was changed, as a forger would."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, entry in manifest["files"].items():
        data = (folder / name).read_bytes()
        entry.update(size=len(data), sha256=hashlib.sha256(data).hexdigest())
    forge(folder, json.dumps(manifest).encode())


def forge(folder: Path, manifest: bytes) -> None:
    """Puts a manifest in place, with its right hash."""
    (folder / "manifest.json").write_bytes(manifest)
    (folder / "manifest.sha256").write_text(hashlib.sha256(manifest).hexdigest() + "\n")


@pytest.fixture(name="reseal")
def _reseal() -> Callable[[Path], None]:
    return reseal


@pytest.fixture(name="forge")
def _forge() -> Callable[[Path, bytes], None]:
    return forge
