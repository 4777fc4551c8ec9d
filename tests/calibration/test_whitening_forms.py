"""What the types and forms of factors cost in accuracy, against float64 and the textbook formula."""

import numpy as np
import pytest

from flawline.calibration.whitening import packed_factors, regularisation
from flawline.calibration.woodbury import last_rows, smaller_form, woodbury_factors
from flawline.runtime import InputError
from flawline.runtime.kernels import Gaussians, mahalanobis, packed_size, padded_rows, unpack

COUNT, D, IMAGES = 12, 100, 41


@pytest.fixture
def images():
    """Centred vectors, float64 (G, N, d), with eigenvalues that fall by a factor of 600 in directions of their own."""
    generator = np.random.default_rng(4)
    directions = np.linalg.qr(generator.standard_normal((COUNT, D, D)))[0]
    vectors = generator.standard_normal((COUNT, IMAGES, D)) * np.geomspace(5, 0.2, D) @ directions
    return vectors - vectors.mean(axis=1, keepdims=True)


@pytest.fixture
def covariance(images):
    return images.swapaxes(1, 2) @ images / (IMAGES - 1)


@pytest.fixture
def vectors(images):
    """What is scored, float32 (B, G, d): "good" within the span of the images, "flawed" outside."""
    flawed = np.random.default_rng(5).standard_normal((3, COUNT, D))
    return {"good": np.moveaxis(images[:, :3], 1, 0).astype(np.float32), "flawed": flawed.astype(np.float32)}


def gaussians(packed):
    return Gaussians(
        np.zeros((COUNT, 1, D), np.float32),
        packed.factors[:, None],
        packed.scales[:, None],
        np.arange(COUNT, dtype=np.int32),
        None if packed.row_scales is None else packed.row_scales[:, None],
        packed.rank,
    )


def relative_errors(packed, x, covariance, added):
    inverse = np.linalg.inv(covariance + added * np.eye(D))
    exact = np.sqrt(np.einsum("bgi,gij,bgj->bg", x.astype(np.float64), inverse, x.astype(np.float64)))
    return np.abs(mahalanobis(np.ascontiguousarray(x), gaussians(packed)) / exact - 1)


# Largest relative error of a distance; measured, with room of about two. int8 is not for the Woodbury form: see `good`.
LARGEST_ERROR = {
    ("triangle", "float32"): {"good": 4e-7, "flawed": 2e-7},
    ("triangle", "float16"): {"good": 1e-3, "flawed": 2e-4},
    ("triangle", "int8"): {"good": 1e-1, "flawed": 1e-2},
    ("woodbury", "float32"): {"good": 6e-5, "flawed": 3e-7},
    ("woodbury", "float16"): {"good": 4e-2, "flawed": 2e-4},
    ("woodbury", "int8"): {"flawed": 1e-2},
}


@pytest.mark.parametrize(("form", "dtype"), LARGEST_ERROR)
def test_distances_are_within_what_type_and_form_promise(form, dtype, covariance, vectors):
    added = regularisation(covariance, 0.01, relative=True)
    if form == "triangle":
        packed = packed_factors(covariance, added, dtype)
    else:
        packed = woodbury_factors(covariance, added, IMAGES - 1, dtype)
    for kind, bound in LARGEST_ERROR[form, dtype].items():
        assert relative_errors(packed, vectors[kind], covariance, added).max() <= bound


def test_int8_triangles_have_a_scale_per_row(covariance):
    packed = packed_factors(covariance, 0.1, np.int8)
    assert packed.factors.shape == (COUNT, packed_size(D))
    assert packed.row_scales is not None
    assert packed.row_scales.shape == (COUNT, padded_rows(D))
    np.testing.assert_array_equal(packed.row_scales[:, : padded_rows(D) - D], 0)


def test_a_multiple_of_the_identity_in_the_covariance_counts_as_added(covariance, vectors):
    shrunk = 0.9 * covariance + 0.3 * np.eye(D)
    packed = woodbury_factors(shrunk, 0.05, IMAGES - 1, np.float32)
    np.testing.assert_allclose(packed.scales, 1 / np.sqrt(0.35), rtol=1e-6)
    assert relative_errors(packed, vectors["flawed"], shrunk, 0.05).max() <= 1e-6


def test_a_covariance_of_higher_rank_is_refused(covariance):
    with pytest.raises(InputError, match="not of rank 39"):
        woodbury_factors(covariance, 0.1, IMAGES - 2, np.float32)


@pytest.mark.parametrize("rank", [0, D, D + 1])
def test_a_rank_that_leaves_nothing_to_save_is_refused(rank, covariance):
    with pytest.raises(InputError, match="saves nothing for dimension 100"):
        woodbury_factors(covariance, 0.1, rank, np.float32)


def test_images_that_do_not_vary_have_no_distance_but_the_plain_one(vectors):
    packed = woodbury_factors(np.zeros((COUNT, D, D)), 0.25, 3, np.float16)
    x = vectors["flawed"]
    np.testing.assert_allclose(mahalanobis(x, gaussians(packed)), 2 * np.linalg.norm(x, axis=-1), rtol=1e-6)


@pytest.mark.parametrize(("rank", "dimension"), [(1, 1), (1, 5), (4, 5), (5, 5), (40, 100)])
def test_rotated_rows_keep_every_norm_and_fill_the_end_of_a_triangle(rank, dimension):
    generator = np.random.default_rng(6)
    rows, z = generator.standard_normal((3, rank, dimension)), generator.standard_normal((dimension, 7))
    rotated = last_rows(rows)
    np.testing.assert_allclose(np.linalg.norm(rotated @ z, axis=1), np.linalg.norm(rows @ z, axis=1), rtol=1e-12)
    np.testing.assert_array_equal(np.triu(rotated, dimension - rank + 1), 0)


def test_packed_rows_are_those_of_the_identity_of_woodbury(covariance):
    added = regularisation(covariance, 0.01, relative=True)
    packed = woodbury_factors(covariance, added, IMAGES - 1, np.float32)
    rows = unpack(packed.factors, D, packed.rank).astype(np.float64)
    inverse = (np.eye(D) - rows.swapaxes(1, 2) @ rows) * packed.scales[:, None, None].astype(np.float64) ** 2
    exact = np.linalg.inv(covariance + added * np.eye(D))
    np.testing.assert_allclose(inverse, exact, atol=1e-6 * np.abs(exact).max())


def test_the_smaller_form_is_chosen_by_bytes():
    assert smaller_form(41, 100) == "woodbury"
    assert packed_size(100, 40) < 0.63 * packed_size(100)
    assert smaller_form(49, 100) == "woodbury"
    assert smaller_form(50, 100) == "triangle"
    assert smaller_form(101, 100) == smaller_form(1000, 100) == "triangle"
    assert smaller_form(1, 100) == "triangle"
    assert smaller_form(41, 100, np.float32) == "woodbury"
    assert smaller_form(41, 100, np.int8) == "triangle"
