"""Bundles that were committed once and must be readable for ever."""

import io
from pathlib import Path

import numpy as np
import pytest

from flawline.runtime import bundle, kernels
from flawline.runtime.bundle import contents, tensors

FOLDER_1_0 = Path(__file__).parents[2] / "golden" / "bundle_1_0"
FOLDER_1_1 = Path(__file__).parents[2] / "golden" / "bundle_1_1"
FOLDER_1_2 = Path(__file__).parents[2] / "golden" / "bundle_1_2"
FOLDER_1_3 = Path(__file__).parents[2] / "golden" / "bundle_1_3"
HASH_1_0 = "0767778e896b6d2408ade2bbde26d03aca9a1f32ff9773d314734c8459c3e8ae"
HASH_1_1 = "7bc96567d6572a6b79f34b4c986e3ea8c7028bc382b1b8e2d53eec860addf2f7"
HASH_1_2 = "fb77e3ffd696c009639adb4522614fbfe65718481c57e17bae99a2b16f6dc6f3"
HASH_1_3 = "32af2f98148436c5073bfd526f3d82ae409476a23f7e2ad1eeb0557236042cbe"
FEATURES = b"not a network: the reader does not look inside"


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


def int8_statistics() -> dict[str, np.ndarray]:
    """The same Gaussians, of one component, in 8 bits."""
    rows, columns = np.tril_indices(3)
    lower = np.zeros((4, 3, 3), np.int8)
    lower[:, rows, columns] = np.arange(1, 25).reshape(4, 6) * 5
    scales = np.zeros((4, 8), np.float16)
    scales[:, 5:] = np.array([0.5, 0.25, 0.125]) / 128
    return {
        **statistics(),
        "means": statistics()["means"][:, :1],
        "factors": kernels.pack(lower, np.int8)[:, None],
        "scales": statistics()["scales"][:, :1],
        "row_scales": scales[:, None],
    }


def of_web(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same Gaussians, one per column of a map of three rows."""
    return {**tensors, "assignment": np.tile(tensors["assignment"], 3)}


def of_lanes(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The first two of the Gaussians, one per lane of two columns of that map."""
    own = {name: array[:2] for name, array in tensors.items() if name in ("means", "factors", "scales", "row_scales")}
    return {**tensors, **own, "assignment": np.tile(np.array([0, 0, 1, 1], np.int32), 3)}


def golden() -> list[bundle.Golden]:
    """A colour frame of eight pixels with its map."""
    frame = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    return [bundle.Golden(frame=frame, score=0.75, map=np.array([[0.25, 0.5], [0.75, 0.0]], np.float32))]


def window() -> list[bundle.Golden]:
    """A grey window of a web with its map."""
    frame = (np.arange(20 * 24) % 251).astype(np.uint8).reshape(20, 24)
    return [bundle.Golden(frame=frame, score=1.375, map=np.arange(12, dtype=np.float32).reshape(3, 4) / 8)]


def network(precision: str, quantisation: bundle.Quantisation | None = None) -> bundle.Network:
    return bundle.Network(
        name="golden",
        layers=["layer1"],
        weights=bundle.Weights(origin="none", sha256="0" * 64, random=True),
        precision=precision,
        quantisation=quantisation,
        input="frame",
        outputs=[bundle.Output(name="features_0", height=3, width=4)],
        total_stride=4,
    )


def gaussian(**changed: object) -> bundle.Gaussian:
    fields = {
        "tie": "column",
        "lane_px": 4,
        "count": 2,
        "components": 2,
        "epsilon": 0.25,
        "epsilon_relative": True,
        "shrinkage": 0.125,
        "factors": "fp16",
        "form": "triangle",
        "rank": None,
        "block_rows": 8,
    }
    return bundle.Gaussian(**{**fields, **changed})


def without_lanes(**changed: object) -> bundle.Gaussian:
    """The same in earlier versions."""
    return gaussian(**{"lane_px": None, "count": 4, **changed})


def variants() -> dict[str, bundle.PadimVariant]:
    """One precision with a network of its own, one that shares the float network."""
    sensitivity = [bundle.LayerError(layer="conv1", relative_error=0.125, kept_float=True)]
    return {
        "int8": bundle.PadimVariant(
            features="features.int8.onnx",
            network=network("int8", bundle.Quantisation(calibration_images=12, sensitivity=sensitivity)),
            gaussian=gaussian(components=1, factors="int8"),
            threshold=bundle.Threshold(false_reject_rate=0.125, score=2.5, calibration_images=9),
            parity={"reference": "none", "relative_error_max": 0.25},
            fidelity={"reference": "float", "rank_correlation": 0.75},
            golden=bundle.GoldenFacts(relative_tolerance=0.125),
        ),
        "bf16": bundle.PadimVariant(
            features="features.onnx",
            network=network("bf16"),
            gaussian=gaussian(),
            threshold=bundle.Threshold(false_reject_rate=0.125, score=2.25, calibration_images=9),
            parity=None,
            fidelity=None,
            golden=bundle.GoldenFacts(relative_tolerance=0.0625),
        ),
    }


def manifest() -> bundle.PadimManifest:
    """Every field spelt out, so that a change of defaults cannot pass unseen."""
    return bundle.PadimManifest(
        format=bundle.Format(major=1, minor=3),
        flawline="0.1.0",
        input=bundle.Input(
            height=20,
            width=24,
            channels=1,
            layout="nhwc",
            interpolation="linear",
            source_height=None,
            source_width=None,
        ),
        network=network("fp32"),
        projection=bundle.Projection(kind="sparse", seed=1, input_dimension=5, dimension=3, generator="philox4x64"),
        map=bundle.Map(height=3, width=4, upsampling="nearest", sigma=0.5),
        gaussian=gaussian(),
        threshold=bundle.Threshold(false_reject_rate=0.125, score=2.25, calibration_images=9),
        fit=bundle.Fit(images=16, calibration_images=9, group_by="part-*", seed=2, sources_sha256="f" * 64),
        web=bundle.Web(
            halo=8,
            ring=4,
            pixel_mm=0.125,
            line_mm=0.25,
            edges=bundle.Edges(margin_px=3),
            shading=bundle.Shading(target=112.5, width_px=16),
        ),
        parity={"reference": "none", "relative_error_max": 0.5},
        fidelity=None,
        variants=variants(),
        golden=bundle.GoldenFacts(relative_tolerance=0.0625),
    )


def write(path: Path) -> bundle.Bundle:
    payloads = {
        "int8": bundle.Payload(b"nor is this", of_lanes(int8_statistics()), window()),
        "bf16": bundle.Payload(FEATURES, of_lanes(statistics()), window()),
    }
    return bundle.write(path, manifest(), FEATURES, of_lanes(statistics()), window(), payloads)


def check(
    opened: bundle.Bundle,
    features: bytes,
    expected_statistics: dict[str, np.ndarray],
    expected_golden: list[bundle.Golden],
) -> None:
    assert opened.features == features
    assert opened.statistics.keys() == expected_statistics.keys()
    for name, array in expected_statistics.items():
        np.testing.assert_array_equal(opened.statistics[name], array, strict=True)
    for received, expected in zip(opened.golden, expected_golden, strict=True):
        np.testing.assert_array_equal(received.frame, expected.frame, strict=True)
        np.testing.assert_array_equal(received.map, expected.map, strict=True)
        assert received.score == expected.score


def test_the_bundle_of_format_1_0_is_read_bit_for_bit() -> None:
    opened = bundle.read(FOLDER_1_0)
    assert (opened.hash, opened.precisions) == (HASH_1_0, ("fp32",))
    assert (opened.manifest.gaussian.form, opened.manifest.gaussian.rank) == ("triangle", None)
    check(opened, FEATURES, statistics(), golden())


def test_the_bundle_of_format_1_1_is_read_bit_for_bit_in_every_precision() -> None:
    opened = bundle.read(FOLDER_1_1)
    assert (opened.hash, opened.precisions) == (HASH_1_1, ("fp32", "bf16", "int8"))
    check(opened, FEATURES, statistics(), golden())
    check(opened.select("int8"), b"nor is this", int8_statistics(), golden())
    check(opened.select("int8").select("bf16"), FEATURES, statistics(), golden())
    assert opened.select("int8").manifest.gaussian == without_lanes(tie="position", components=1, factors="int8")
    assert opened.select("int8").select(None).manifest == opened.manifest


def test_the_bundle_of_format_1_2_is_read_bit_for_bit_in_every_precision() -> None:
    opened = bundle.read(FOLDER_1_2)
    assert (opened.hash, opened.precisions) == (HASH_1_2, ("fp32", "bf16", "int8"))
    check(opened, FEATURES, of_web(statistics()), window())
    check(opened.select("int8"), b"nor is this", of_web(int8_statistics()), window())
    check(opened.select("bf16"), FEATURES, of_web(statistics()), window())
    for precision in opened.precisions:
        assert opened.select(precision).manifest.web == manifest().web
        assert opened.select(precision).manifest.gaussian.lane_px is None


def test_the_bundle_of_format_1_3_is_read_bit_for_bit_in_every_precision() -> None:
    opened = bundle.read(FOLDER_1_3)
    assert (opened.hash, opened.precisions) == (HASH_1_3, ("fp32", "bf16", "int8"))
    check(opened, FEATURES, of_lanes(statistics()), window())
    check(opened.select("int8"), b"nor is this", of_lanes(int8_statistics()), window())
    check(opened.select("bf16"), FEATURES, of_lanes(statistics()), window())
    assert opened.select("int8").manifest.gaussian == gaussian(components=1, factors="int8")
    assert opened.manifest.web == manifest().web


@pytest.mark.parametrize("folder", [FOLDER_1_0, FOLDER_1_1])
def test_a_bundle_of_an_earlier_format_is_one_for_pictures(folder: Path) -> None:
    assert bundle.read(folder).manifest.web is None


def test_the_writer_still_makes_the_committed_bytes(tmp_path: Path) -> None:
    written = write(tmp_path / "bundle")
    assert {path.name: path.read_bytes() for path in written.path.iterdir()} == {
        path.name: path.read_bytes() for path in FOLDER_1_3.iterdir()
    }


@pytest.mark.parametrize(
    ("folder", "name", "arrays"),
    [
        (FOLDER_1_0, "statistics", statistics()),
        (FOLDER_1_0, "golden", contents.golden_tensors(golden())),
        (FOLDER_1_1, "statistics", statistics()),
        (FOLDER_1_1, "statistics.int8", int8_statistics()),
        (FOLDER_1_1, "golden", contents.golden_tensors(golden())),
        (FOLDER_1_2, "statistics", of_web(statistics())),
        (FOLDER_1_2, "statistics.int8", of_web(int8_statistics())),
        (FOLDER_1_2, "golden", contents.golden_tensors(window())),
        (FOLDER_1_3, "statistics", of_lanes(statistics())),
        (FOLDER_1_3, "statistics.int8", of_lanes(int8_statistics())),
        (FOLDER_1_3, "golden", contents.golden_tensors(window())),
    ],
)
def test_tensor_files_are_the_committed_bytes(folder: Path, name: str, arrays: dict[str, np.ndarray]) -> None:
    file = io.BytesIO()
    tensors.write(file, arrays)
    assert file.getvalue() == (folder / f"{name}.safetensors").read_bytes()
