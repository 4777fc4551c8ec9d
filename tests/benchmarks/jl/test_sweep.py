from pathlib import Path

import numpy as np
import pytest

from flawline.benchmarks.datasets import Item
from flawline.benchmarks.jl import accuracy
from flawline.benchmarks.jl.features import Features
from flawline.benchmarks.jl.sweep import Case, Epsilon, Sweep, cases, halves, image_scores
from flawline.calibration import projections
from flawline.calibration.whitening import regularisation, whitening
from flawline.runtime.kernels import smooth

EPSILONS = (Epsilon(0.001), Epsilon(0.1), Epsilon(0.01, relative=False))


def features(fit_images=40, images=14, depth=12, size=(3, 4)):
    """Correlated features at a few positions; the last half of the test images is shifted."""
    generator = np.random.default_rng(5)
    positions = size[0] * size[1]
    mixing = generator.normal(size=(positions, depth, depth)) / np.sqrt(depth)
    fit = np.einsum("npd,pde->pne", generator.normal(size=(fit_images, positions, depth)), mixing) + 3
    test = np.einsum("npd,pde->pne", generator.normal(size=(images, positions, depth)), mixing) + 3
    test[:, images // 2 :] += 0.7
    mean = fit.mean(axis=1)
    centred = fit - mean[:, None]
    return Features(
        network="none",
        weights="none",
        image_size_px=32,
        map_size=size,
        fit_images=fit_images,
        mean=mean,
        covariance=centred.transpose(0, 2, 1) @ centred / (fit_images - 1),
        centred=(test - mean[:, None]).astype(np.float32),
        items=tuple(Item(Path(f"{i}.png"), "good" if i < images // 2 else "flaw") for i in range(images)),
    )


@pytest.mark.parametrize("kind", ["select", "gaussian", "orthogonal", "sparse", "none"])
@pytest.mark.parametrize("sigma", [0.0, 0.7])
def test_sweep_equals_the_textbook(kind, sigma):
    data = features()
    case = Case(kind, 12 if kind == "none" else 5, 3)
    maps = Sweep(data, EPSILONS, sigma=sigma, threads=1).maps(case)

    matrix = projections.matrix(kind, input_dimension=12, dimension=case.dimension, seed=3).astype(np.float64)
    covariance = matrix @ data.covariance @ matrix.T
    projected = data.centred.astype(np.float64) @ matrix.T
    for epsilon, found in zip(EPSILONS, maps, strict=True):
        added = regularisation(covariance, epsilon.value, relative=epsilon.relative)
        whitened = np.einsum("pij,pnj->npi", whitening(covariance, added), projected)
        expected = np.linalg.norm(whitened, axis=2).reshape(-1, 3, 4).astype(np.float32)
        np.testing.assert_allclose(found, smooth(np.ascontiguousarray(expected), sigma), rtol=2e-5)


def test_results_do_not_depend_on_threads_bit_for_bit():
    data = features()
    case = Case("gaussian", 7, 0)
    results = [Sweep(data, EPSILONS, sigma=0.5, threads=threads).maps(case).tobytes() for threads in (1, 1, 2, 3)]
    assert len(set(results)) == 1


def test_singular_covariance_is_regularised_not_amplified():
    maps = Sweep(features(fit_images=4), EPSILONS, sigma=0.0, threads=1).maps(Case("none", 12, 0))
    assert np.isfinite(maps).all()


def test_cases_leave_out_what_is_deeper_than_the_features():
    found = cases(("select", "none"), (4, 8, 100), (0, 1), depth=12)
    assert [(case.kind, case.dimension, case.seed) for case in found] == [
        ("select", 4, 0),
        ("select", 4, 1),
        ("select", 8, 0),
        ("select", 8, 1),
        ("none", 12, 0),
    ]


def test_halves_divide_every_kind():
    kinds = ["good"] * 10 + ["crack"] * 7 + ["hole"] * 2
    first = halves(kinds, 0)
    assert [int(first[[k == kind for k in kinds]].sum()) for kind in ("good", "crack", "hole")] == [5, 3, 1]
    np.testing.assert_array_equal(first, halves(kinds, 0))
    assert (first != halves(kinds, 1)).any()


def test_score_is_the_maximum():
    maps = np.arange(24, dtype=np.float32).reshape(2, 1, 3, 4)
    np.testing.assert_array_equal(image_scores(maps), [[11], [23]])


def test_accuracy_is_equal_in_two_runs():
    data = features(images=24)
    chosen = cases(("select", "gaussian"), (2, 6), (0, 1, 2), data.depth)
    runs = [
        accuracy.as_json(accuracy.measure(data, chosen, EPSILONS, sigma=0.5, pixel_grid=16, threads=threads), EPSILONS)
        for threads in (1, 2)
    ]
    assert runs[0] == runs[1]
    found = runs[0]["metrics"]
    assert set(found) == {"image AUROC"}
    assert len(found["image AUROC"]["sweep"]) == len(chosen) * len(EPSILONS)
