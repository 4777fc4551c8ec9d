"""Whole frames with features from torch, on a GPU and on the stand-in driver: scores and maps are those of the CPU."""

from collections.abc import Iterator

import numpy as np
import pytest

from flawline.benchmarks.gpu.frames import random_manifest
from flawline.benchmarks.gpu.statistics import random_gaussians
from flawline.benchmarks.gpu.torch_engine import TorchEngine
from flawline.calibration import projections
from flawline.export.features import export_features, open_backbone
from flawline.runtime.gpu.device import Device
from flawline.runtime.gpu.padim import PadimScoring
from flawline.runtime.gpu.scorer import GpuScorer
from flawline.runtime.scorer import Scorer
from tests.gpu import real

torch = pytest.importorskip("torch")

SIDE, DIMENSION, BATCH = 64, 20, 2
# fp16 keeps eleven bits of a weight or a feature.
TOLERANCES = {"fp32": 1e-4, "fp16": 2e-2}


@pytest.fixture(params=["emulated", pytest.param("gpu", marks=pytest.mark.gpu)])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[TorchEngine]]:
    if request.param == "emulated":
        from tests.benchmarks.gpu.conftest import HostEngine

        request.getfixturevalue("standin")
        yield HostEngine
        return
    real.find(request.config)
    if not torch.cuda.is_available():
        pytest.skip("this torch sees no GPU")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    yield TorchEngine


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_frames_score_as_on_the_cpu(engine, precision, graph):
    backbone = open_backbone("resnet18", layers=None, weights="random", image_size=SIDE, mean=None, std=None, seed=0)
    exported = export_features(
        backbone, channels=3, projection="orthogonal", dimension=DIMENSION, map_stride=None, seed=0
    )
    matrix = projections.expand("orthogonal", exported.stored_projection, exported.projection.input_dimension)
    size = exported.map_size
    gaussians = random_gaussians(size[0] * size[1], DIMENSION, "float16")
    manifest = random_manifest(exported, gaussians, "float16")

    def open_engine(source, targets):
        return engine(exported, matrix, precision, BATCH, source, targets, capturable=graph)

    frames = np.random.default_rng(0).integers(0, 256, (6, 80, 96, 3), np.uint8)
    with (
        GpuScorer(Device(), PadimScoring(manifest, gaussians), open_engine, batch=BATCH) as scorer,
        Scorer(exported.features, manifest, gaussians, backend="onnxruntime") as reference,
    ):
        # Piece by piece, captured, and again from the graph.
        for pair in (frames[:2], frames[2:4], frames[4:]):
            scores, maps = scorer.batch(list(pair))
            for frame, score, found in zip(pair, scores, maps, strict=True):
                expected_score, expected_map = reference(frame)
                np.testing.assert_allclose(found, expected_map, rtol=TOLERANCES[precision])
                assert score == pytest.approx(expected_score, rel=TOLERANCES[precision])
        assert (scorer.graph_refused is None) == graph
