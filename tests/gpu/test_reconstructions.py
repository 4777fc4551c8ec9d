"""Whole frames by reconstruction, on a GPU and on the stand-in driver: scores and maps are those of the CPU."""

import functools
import importlib.util
from pathlib import Path

import msgspec
import numpy as np
import pytest

from flawline.runtime.gpu.device import Device
from flawline.runtime.gpu.reconstruction import ReconstructionScoring
from flawline.runtime.gpu.scorer import GpuScorer
from flawline.runtime.kernels import proximally_sensitive_error
from flawline.runtime.map_kinds import SALIENCIES
from tests.fitted_reconstructions import FITTED, SIDE, Fitted, fit, image
from tests.gpu import real

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from tests.gpu.test_frames import engine  # noqa: E402 -- what it imports may not be there
from tests.gpu.torch_reconstruction import components, engine_of, rebuild  # noqa: E402
from tests.runtime import reconstructions  # noqa: E402
from tests.runtime.reconstructions import KINDS, SIGMA_PX  # noqa: E402

__all__ = ["engine"]

SIZE, COMPONENTS, BATCH = (52, 70), 6, 2
# Sums of thousands of products, in another order.
TOLERANCE = 1e-3


def expected_map(frame: np.ndarray, kind: str) -> np.ndarray:
    planes = np.ascontiguousarray(np.atleast_3d(frame).transpose(2, 0, 1))[None]
    arrays = (torch.from_numpy(array) for array in components(planes.shape[1:], COMPONENTS))
    reconstruction, saliency = (found.numpy() for found in rebuild(torch.from_numpy(planes), *arrays))
    if kind.startswith("saliency"):
        return saliency[0, 0] if kind == "saliency" else saliency[0, 0] ** 2
    sigma = SIGMA_PX if kind == "pse" else 0.0
    return proximally_sensitive_error(planes, reconstruction, sigma, implementation="reference").map[0]


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_frames_score_as_on_the_cpu(engine, channels, kind, graph):
    manifest = reconstructions.manifest(channels=channels, layout="nchw", size=SIZE)
    facts = msgspec.structs.replace(manifest.reconstruction, map=kind)
    scoring = ReconstructionScoring(msgspec.structs.replace(manifest, reconstruction=facts))
    open_engine = functools.partial(
        engine_of(engine),
        (channels, *SIZE),
        COMPONENTS,
        BATCH,
        of_saliency=kind in SALIENCIES,
        capturable=graph,
    )
    frames = reconstructions.random_frames(6, channels=channels, size=SIZE)
    with GpuScorer(Device(), scoring, open_engine, batch=BATCH) as scorer:
        # Piece by piece, captured, and again from the graph.
        for start in range(0, 6, BATCH):
            pair = frames[start : start + BATCH]
            scores, maps = scorer.batch(pair)
            for frame, score, found in zip(pair, scores, maps, strict=True):
                expected = expected_map(frame, kind)
                np.testing.assert_allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE * expected.max())
                assert score == found.max()
        assert (scorer.graph_refused is None) == graph


@pytest.mark.gpu
@pytest.mark.tensorrt
@pytest.mark.parametrize("name", FITTED)
def test_fitted_detectors_score_through_tensorrt_as_on_the_cpu(
    name: Fitted, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flawline.runtime import Detector

    real.find(request.config)
    for package in ("tensorrt", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bundle = fit(name, tmp_path)
    frames = [image(100 + index, (SIDE, SIDE), colour="colour" in name) for index in range(2 * BATCH)]
    for kind in bundle.manifest.reconstruction.maps:
        with (
            Detector.open(bundle.path, backend="tensorrt", batch=BATCH, map=kind) as detector,
            Detector.open(bundle.path, backend="onnxruntime", map=kind) as reference,
        ):
            for start in (0, BATCH):
                for frame, found in zip(frames[start:], detector.batch(frames[start : start + BATCH]), strict=False):
                    expected = reference(frame)
                    assert found.score == pytest.approx(expected.score, rel=TOLERANCE)
                    np.testing.assert_allclose(found.map, expected.map, rtol=TOLERANCE, atol=TOLERANCE * expected.score)
