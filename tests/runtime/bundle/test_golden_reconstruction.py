"""A bundle of a reconstruction detector that was committed once, and must be readable and give its scores for ever."""

from pathlib import Path

import numpy as np
import pytest

from flawline.calibration.principal_components import PrincipalComponents
from flawline.export.pca_graph import compose_reconstruction
from flawline.runtime import Detector, bundle
from flawline.runtime.engines import open_scorer
from flawline.runtime.kernels import proximally_sensitive_error
from flawline.runtime.verification import verify

FOLDER_1_4 = Path(__file__).parents[2] / "golden" / "bundle_1_4"
HASH_1_4 = "29cead05da3347a007480b5a36bbe720c7ae1473a6967d6827f0f33dc18fe783"
SIDES = {"height": 16, "width": 20}


def components() -> PrincipalComponents:
    """Half a frame brighter than the other, left and right, above and below; of the mean 96."""
    half = np.repeat([-1, 1], 8)[:, None] * np.ones(20), np.ones(16)[:, None] * np.repeat([-1, 1], 10)
    basis = np.stack([one.ravel() for one in half]) / np.sqrt(320)
    return PrincipalComponents(
        mean=np.full(320, 96, np.float32),
        basis=basis.astype(np.float32),
        explained_variance=np.array([4096.0, 1024.0]),
        total_variance=5120.0 + 320,
        shape=(1, 16, 20),
    )


def frame() -> np.ndarray:
    """What the components rebuild, but for a bright square and two pixels."""
    pixels = np.full((16, 20), 96, np.uint8)
    pixels[8:] += 32
    pixels[:, 10:] += 16
    pixels[3:6, 4:7] += 64
    pixels[12, 15] -= 40
    pixels[0, 0] = 0
    return pixels


def reconstruction(pixels: np.ndarray) -> np.ndarray:
    """float32 (16, 20): the frame rebuilt, by the definition."""
    model = components()
    basis = model.basis.astype(np.float64)
    centred = pixels.ravel() - model.mean.astype(np.float64)
    return (model.mean + basis.T @ (basis @ centred)).reshape(16, 20).astype(np.float32)


def maps() -> dict[str, np.ndarray]:
    """The map of each kind that the bundle offers, by the definition."""
    image, rebuilt = frame()[None, None], reconstruction(frame())[None, None]
    sigma = {"error": 0.0, "pse": 1.25}
    return {
        kind: proximally_sensitive_error(image, rebuilt, sigma[kind], implementation="reference").map[0]
        for kind in sigma
    }


def statistics() -> dict[str, np.ndarray]:
    return {
        "calibration_scores.error": np.array([25, 100, 225, 400], np.float32),
        "calibration_scores.pse": np.array([4, 8, 16, 64], np.float32),
    }


def manifest() -> bundle.ReconstructionManifest:
    """Every field spelt out, so that a change of defaults cannot pass unseen."""
    return bundle.ReconstructionManifest(
        format=bundle.Format(major=1, minor=4),
        flawline="0.1.0",
        input=bundle.Input(
            channels=1, layout="nhwc", interpolation="area", source_height=None, source_width=None, **SIDES
        ),
        network=bundle.Network(
            name="pca",
            layers=["reconstruction"],
            weights=bundle.Weights(origin="fitted on the good images", sha256="0" * 64, random=False),
            precision="fp32",
            quantisation=None,
            input="frame",
            outputs=[bundle.Output(name="reconstruction", **SIDES)],
            total_stride=1,
        ),
        map=bundle.Map(upsampling="nearest", sigma=1.25, **SIDES),
        reconstruction=bundle.Reconstruction(
            kind="pca",
            architecture="pca",
            components=2,
            maps={"error": bundle.MapThreshold(score=400.0), "pse": bundle.MapThreshold(score=64.0)},
            map="pse",
            normalised=True,
            loss=None,
            epochs=None,
            best_epoch=None,
            chosen="given",
        ),
        threshold=bundle.Threshold(false_reject_rate=0.25, score=64.0, calibration_images=4),
        fit=bundle.Fit(images=16, calibration_images=4, group_by=None, seed=2, sources_sha256="f" * 64),
        web=None,
        parity={"reference": "none", "relative_error_max": 0.5},
        fidelity=None,
        golden=bundle.GoldenFacts(relative_tolerance=0.001),
    )


def golden() -> list[bundle.Golden]:
    anomaly_map = maps()["pse"]
    return [bundle.Golden(frame=frame(), score=float(anomaly_map.max()), map=anomaly_map)]


def write(path: Path, features: bytes | None = None) -> bundle.Bundle:
    """Writes the bundle, with a graph made anew unless there is one: its bytes depend on the version of onnx."""
    return bundle.write(path, manifest(), features or compose_reconstruction(components()), statistics(), golden())


def test_the_bundle_of_format_1_4_is_read_bit_for_bit() -> None:
    opened = bundle.read(FOLDER_1_4)
    assert (opened.hash, opened.precisions, opened.manifest.detector) == (HASH_1_4, ("fp32",), "reconstruction")
    assert opened.with_map(None).manifest == opened.manifest
    assert opened.statistics.keys() == statistics().keys()
    for name, array in statistics().items():
        np.testing.assert_array_equal(opened.statistics[name], array, strict=True)
    (one,) = opened.golden
    np.testing.assert_array_equal(one.frame, frame(), strict=True)
    np.testing.assert_allclose(one.map, maps()["pse"], rtol=1e-4, atol=1e-3)


def test_the_writer_still_makes_the_committed_bytes(tmp_path: Path) -> None:
    committed = bundle.read(FOLDER_1_4)
    written = bundle.write(tmp_path / "bundle", manifest(), committed.features, statistics(), committed.golden)
    assert {path.name: path.read_bytes() for path in written.path.iterdir()} == {
        path.name: path.read_bytes() for path in FOLDER_1_4.iterdir()
    }


def test_a_graph_made_anew_gives_the_committed_scores(engine: str, tmp_path: Path) -> None:
    opened = write(tmp_path / "bundle")
    with open_scorer(opened, engine, threads=1) as scorer:
        assert all(check.passed for check in verify(bundle.read(FOLDER_1_4), scorer))


@pytest.mark.parametrize("kind", [None, "error", "pse"])
def test_every_engine_gives_the_committed_maps(kind: str | None, engine: str) -> None:
    with Detector.open(FOLDER_1_4, backend=engine, map=kind) as detector:
        result = detector(frame())
    expected = maps()[kind or "pse"]
    np.testing.assert_allclose(result.map, expected, rtol=1e-3, atol=1e-3 * expected.max())
    assert (result.verdict, result.p_value) == ("reject", 1 / 5)
