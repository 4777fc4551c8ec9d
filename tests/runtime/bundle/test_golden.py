"""A bundle that was committed once and must be readable for ever."""

import io
from pathlib import Path

import numpy as np
import pytest

from flawline.runtime import bundle, kernels
from flawline.runtime.bundle import contents, tensors

FOLDER = Path(__file__).parents[2] / "golden" / "bundle_1_0"
HASH = "0767778e896b6d2408ade2bbde26d03aca9a1f32ff9773d314734c8459c3e8ae"


def statistics() -> dict[str, np.ndarray]:
    """Four Gaussians of two components in three dimensions, of numbers that are exact in fp16."""
    rows, columns = np.tril_indices(3)
    lower = np.zeros((4, 2, 3, 3), np.float32)
    lower[..., rows, columns] = np.arange(1, 49).reshape(4, 2, 6) / 16
    return {
        "means": np.arange(24, dtype=np.float32).reshape(4, 2, 3) / 8 - 1,
        "factors": kernels.pack(lower, np.float16),
        "scales": 2.0 ** np.arange(-4, 4, dtype=np.float32).reshape(4, 2),
        "assignment": np.array([3, 1, 2, 0], np.int32),
        "calibration_scores": np.arange(1, 10, dtype=np.float32) / 4,
        "projection": (np.arange(15).reshape(3, 5) % 3 - 1).astype(np.int8),
    }


def golden() -> list[bundle.Golden]:
    """A colour frame of eight pixels with its map."""
    frame = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    return [bundle.Golden(frame=frame, score=0.75, map=np.array([[0.25, 0.5], [0.75, 0.0]], np.float32))]


def manifest() -> bundle.Manifest:
    """Every field spelt out, so that a change of defaults cannot pass unseen."""
    return bundle.Manifest(
        format=bundle.Format(major=1, minor=0),
        flawline="0.1.0",
        detector="padim",
        input=bundle.Input(
            height=32,
            width=32,
            channels=3,
            layout="nhwc",
            interpolation="linear",
            source_height=None,
            source_width=None,
        ),
        network=bundle.Network(
            name="golden",
            layers=["layer1"],
            weights=bundle.Weights(origin="none", sha256="0" * 64, random=True),
            precision="fp32",
            input="frame",
            outputs=[bundle.Output(name="features_0", height=2, width=2)],
            total_stride=16,
        ),
        projection=bundle.Projection(kind="sparse", seed=1, input_dimension=5, dimension=3, generator="philox4x64"),
        map=bundle.Map(height=2, width=2, upsampling="nearest", sigma=0.5),
        gaussian=bundle.Gaussian(
            tie="position",
            count=4,
            components=2,
            epsilon=0.25,
            epsilon_relative=True,
            shrinkage=0.125,
            factors="fp16",
            block_rows=8,
        ),
        threshold=bundle.Threshold(false_reject_rate=0.125, score=2.25, calibration_images=9),
        fit=bundle.Fit(images=16, calibration_images=9, group_by="part-*", seed=2, sources_sha256="f" * 64),
        parity={"reference": "none", "relative_error_max": 0.5},
        golden=bundle.GoldenFacts(relative_tolerance=0.0625),
    )


def test_the_committed_bundle_is_read_bit_for_bit() -> None:
    opened = bundle.read(FOLDER)
    assert opened.hash == HASH
    assert opened.features == b"not a network: the reader does not look inside"
    assert opened.statistics.keys() == statistics().keys()
    for name, array in statistics().items():
        np.testing.assert_array_equal(opened.statistics[name], array, strict=True)
    for received, expected in zip(opened.golden, golden(), strict=True):
        np.testing.assert_array_equal(received.frame, expected.frame, strict=True)
        np.testing.assert_array_equal(received.map, expected.map, strict=True)
        assert received.score == expected.score


def test_the_writer_still_makes_the_committed_bytes(tmp_path: Path) -> None:
    written = bundle.write(tmp_path / "bundle", manifest(), bundle.read(FOLDER).features, statistics(), golden())
    assert {path.name: path.read_bytes() for path in written.path.iterdir()} == {
        path.name: path.read_bytes() for path in FOLDER.iterdir()
    }


@pytest.mark.parametrize(
    ("name", "arrays"),
    [("statistics", statistics()), ("golden", contents.golden_tensors(golden()))],
)
def test_tensor_files_are_the_committed_bytes(name: str, arrays: dict[str, np.ndarray]) -> None:
    file = io.BytesIO()
    tensors.write(file, arrays)
    assert file.getvalue() == (FOLDER / f"{name}.safetensors").read_bytes()
