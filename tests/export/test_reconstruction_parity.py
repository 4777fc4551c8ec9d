"""The gate of reconstruction detectors: the float64 reference is the papers' equations, and what differs from it is caught."""

import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from flawline.calibration.good_images import check_images
from flawline.calibration.principal_components import principal_components
from flawline.export.parity import ParityError
from flawline.export.pca_graph import compose_reconstruction
from flawline.export.reconstruction import Prepared, Reconstructor, draft
from flawline.export.reconstruction_options import PcaOptions
from flawline.export.reconstruction_parity import check, joined, proximal_error, reference_of
from flawline.runtime.images import list_images, read_image
from flawline.runtime.kernels import proximally_sensitive_error
from flawline.runtime.reconstruction_scorer import ReconstructionScorer

SIDE = 48
COMPONENTS = 12


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.3])
def test_the_reference_is_equation_3_pixel_by_pixel(sigma, normalised):
    residual = np.random.default_rng(0).normal(0, 9, (2, 3, 7, 9))
    expected = np.zeros((2, 7, 9))
    reach = range(-math.floor(2 * sigma), math.floor(2 * sigma) + 1)
    kernel = {
        (x, y): math.exp(-(x * x + y * y) / (2 * sigma**2)) / (2 * math.pi * sigma**2) for x in reach for y in reach
    }
    scale = sum(kernel.values()) if normalised else 1.0
    for place in np.ndindex(residual.shape):
        frame, channel, row, column = place
        total = sum(
            weight * residual[frame, channel, row - y, column - x]
            for (x, y), weight in kernel.items()
            if 0 <= row - y < 7 and 0 <= column - x < 9
        )
        expected[frame, row, column] += (total / scale) ** 2 / 3
    np.testing.assert_allclose(proximal_error(residual, sigma, normalised=normalised), expected, rtol=1e-12)


def test_without_a_gaussian_it_is_the_squared_error():
    residual = np.random.default_rng(0).normal(0, 9, (1, 3, 5, 4))
    np.testing.assert_allclose(proximal_error(residual, 0.0, normalised=True), (residual**2).mean(axis=1), rtol=1e-15)


@pytest.mark.parametrize("sigma", [0.0, 1.5, 12.0])
def test_the_reference_agrees_with_the_kernel(sigma):
    generator = np.random.default_rng(1)
    image = generator.integers(0, 256, (2, 1, 40, 48), np.uint8)
    rebuilt = generator.normal(128, 40, image.shape).astype(np.float32)
    expected = proximal_error(image.astype(np.float64) - rebuilt, sigma, normalised=True)
    got = proximally_sensitive_error(image, rebuilt, sigma).map
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * expected.max())


@pytest.fixture(scope="module")
def tiles(shared_data):
    """Components of 40 real tiles, 4 others, and how they are prepared."""
    paths = list_images(shared_data / "magnetic_tile" / "train" / "good")[:44]
    prepared = Prepared(check_images(paths), paths[:40], paths[40:])
    fitted = principal_components(prepared.resized(prepared.fitted, SIDE), COMPONENTS)
    return fitted, [read_image(path) for path in prepared.held_out], prepared


def drafted(tiles, shipped):
    """The file made of some components, with the reference made of the right ones, and its manifest."""
    fitted, _, prepared = tiles
    detector = Reconstructor(
        features=compose_reconstruction(shipped, layout="nchw"),
        kind="pca",
        architecture="pca",
        components=COMPONENTS,
        maps=("pse", "error"),
        sigma=2.0,
        chosen="given",
        fitted_on=prepared.fitted,
        reference=reference_of(fitted),
    )
    return detector, draft(detector, prepared, PcaOptions(image_size=SIDE, threads=1))


def checked(tiles, shipped, kind):
    detector, manifest = drafted(tiles, shipped)
    manifest = manifest.with_map(kind)
    with ReconstructionScorer(detector.features, manifest, backend="onnxruntime") as scorer:
        return check(scorer, detector.reference, manifest, tiles[1])


@pytest.mark.parametrize("kind", ["error", "pse"])
def test_what_was_fitted_passes(tiles, kind):
    report = checked(tiles, tiles[0], kind)
    assert 0 < report["relative_error_max"] <= 1e-3
    assert 0 < report["map_relative_error_max"] <= 1e-3
    assert (report["images"], report["tolerance"]) == (4, 1e-3)


def wrong_mean(fitted):
    return replace(fitted, mean=fitted.mean + np.float32(0.5))


def dropped(fitted):
    return fitted.first(COMPONENTS - 1)


def scaled(fitted):
    return replace(fitted, basis=fitted.basis * np.float32(1.01))


def one_row_scaled(fitted):
    basis = fitted.basis.copy()
    basis[0] *= np.float32(1.01)
    return replace(fitted, basis=basis)


def wrong_pixel(fitted):
    mean = fitted.mean.copy()
    mean[SIDE * 20 + 20] += 3
    return replace(fitted, mean=mean)


@pytest.mark.parametrize("kind", ["error", "pse"])
@pytest.mark.parametrize("broken", [wrong_mean, dropped, scaled, one_row_scaled, wrong_pixel])
def test_what_differs_is_caught(tiles, kind, broken):
    with pytest.raises(ParityError, match="nothing was written"):
        checked(tiles, broken(tiles[0]), kind)


def test_scores_that_agree_do_not_excuse_a_map(tiles):
    detector, manifest = drafted(tiles, tiles[0])
    with ReconstructionScorer(detector.features, manifest, backend="onnxruntime") as scorer:

        def bent(frame):
            score, anomaly_map = scorer(frame)
            anomaly_map[np.unravel_index(anomaly_map.argmin(), anomaly_map.shape)] += 0.01 * score
            return score, anomaly_map

        with pytest.raises(ParityError, match="maps of the exported detector are not those of"):
            check(bent, detector.reference, manifest, tiles[1])


def test_another_sigma_is_caught(tiles):
    detector, manifest = drafted(tiles, tiles[0])
    other = msgspec.structs.replace(manifest, map=msgspec.structs.replace(manifest.map, sigma=2.01))
    with (
        ReconstructionScorer(detector.features, other, backend="onnxruntime") as scorer,
        pytest.raises(ParityError),
    ):
        check(scorer, detector.reference, manifest, tiles[1])


def test_reports_of_several_maps_say_the_worst():
    first = {"reference": "r", "images": 4, "relative_error_max": 1e-5, "tolerance": 1e-3}
    second = {"reference": "r", "images": 4, "relative_error_max": 3e-5, "tolerance": 1e-3}
    assert joined([first, second]) == second
