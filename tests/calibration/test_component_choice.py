import tracemalloc

import numpy as np
import pytest

from flawline.benchmarks.datasets import read_elpv
from flawline.calibration.component_choice import (
    Choice,
    Grid,
    choose_by_labels,
    choose_without_labels,
    grid_scores,
    working_bytes,
)
from flawline.calibration.principal_components import principal_components
from flawline.runtime.errors import InputError
from flawline.runtime.images import read_image
from flawline.runtime.kernels import proximally_sensitive_error

average_precision_score = pytest.importorskip("sklearn.metrics").average_precision_score

SIDE = 32


def good(seed: int, count: int, noise: float = 6.0) -> np.ndarray:
    """Images that differ in three waves, and in the noise of a camera."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    waves = np.stack([np.sin(6 * x), np.cos(5 * y), np.sin(4 * x + 5 * y)])
    values = 128 + 25 * np.einsum("nw,wyx->nyx", generator.normal(size=(count, 3)), waves)
    return np.clip(values + generator.normal(0, noise, values.shape), 0, 255).astype(np.uint8)


def flawed(seed: int, count: int, contrast: int = 15, side: int = 6) -> np.ndarray:
    images = good(seed, count).astype(np.int64)
    for index, (row, column) in enumerate(np.random.default_rng(seed).integers(2, SIDE - side - 2, (count, 2))):
        images[index, row : row + side, column : column + side] -= contrast
    return np.clip(images, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def fitted():
    return principal_components(good(0, 60), 16)


GRID = Grid((1, 3, 16), (0.0, 1.0, 2.0))


def labelled(count=5):
    return np.concatenate((good(1, count), flawed(2, count))), np.repeat([False, True], count)


def test_scores_are_those_of_the_reconstruction_and_the_kernel(fitted):
    images = flawed(3, 4)
    scores = grid_scores(fitted, images, GRID)
    assert scores.shape == (3, 3, 4)
    for row, components in enumerate(GRID.components):
        for column, sigma in enumerate(GRID.sigmas):
            rebuilt = fitted.first(components).reconstruct(images)
            expected = proximally_sensitive_error(images[:, None], rebuilt, sigma).maximum
            np.testing.assert_allclose(scores[row, column], expected, rtol=1e-3)


def test_few_labels_choose_what_separates_them(fitted):
    images, defective = np.concatenate((good(1, 8), flawed(2, 8, contrast=5))), np.repeat([False, True], 8)
    table = [[average_precision_score(defective, s) for s in row] for row in grid_scores(fitted, images, GRID)]
    row, column = np.unravel_index(np.argmax(table), (3, 3))
    choice = choose_by_labels(fitted, images, defective, GRID)
    assert choice == (GRID.components[row], GRID.sigmas[column], np.max(table))
    assert choice.components > 1
    assert choice.sigma > 0


def test_of_equals_the_one_that_keeps_both_kinds_furthest_apart_wins(fitted):
    images, defective = np.concatenate((good(1, 5), flawed(2, 5, contrast=60))), np.repeat([False, True], 5)
    scores = grid_scores(fitted, images, GRID)
    table = np.array([[average_precision_score(defective, s) for s in row] for row in scores])
    assert (table == 1).sum() > 2
    apart = np.where(table == 1, scores[..., 5:].min(axis=2) / scores[..., :5].max(axis=2), 0)
    row, column = np.unravel_index(apart.argmax(), apart.shape)
    assert (row, column) != np.unravel_index(np.argmax(table == 1), table.shape)
    assert choose_by_labels(fitted, images, defective, GRID) == Choice(GRID.components[row], GRID.sigmas[column], 1.0)


def test_of_what_is_as_far_apart_the_smaller_model_wins(fitted):
    copied = np.repeat(good(1, 1), 4, axis=0)
    assert choose_by_labels(fitted, copied, np.array([0, 1, 0, 1], bool), GRID) == Choice(1, 0.0, 0.5)


def test_good_images_that_score_nothing_are_no_division_by_zero():
    constant = np.repeat(np.arange(0, 250, 10, dtype=np.uint8), SIDE * SIDE).reshape(-1, SIDE, SIDE)
    exact = principal_components(constant, 1)
    images = np.concatenate((np.full((2, SIDE, SIDE), np.round(exact.mean[0]), np.uint8), flawed(2, 2)))
    choice = choose_by_labels(exact, images, np.array([0, 0, 1, 1], bool), Grid((1,), (0.0, 1.0)))
    assert choice.value == 1.0


def test_on_real_cells_five_labels_come_near_the_best_that_all_could_choose():
    pytest.importorskip("elpv_dataset")
    cv2 = pytest.importorskip("cv2")
    split = read_elpv("mono").split(100, 20, 0)
    kinds = [[item.path for item in split.test if item.is_defective == defective] for defective in (False, True)]
    paths = [path for kind in kinds for path in kind[::6][:40]]
    defective = np.repeat([False, True], 40)

    def read(paths):
        return np.stack([cv2.resize(read_image(path), (48, 48), interpolation=cv2.INTER_AREA) for path in paths])

    cells, images = principal_components(read(split.fit), 32), read(paths)
    grid = Grid((1, 2, 8, 32), (0.0, 1.0, 2.0, 3.0))
    scores = grid_scores(cells, images, grid)
    values = np.array([[average_precision_score(defective, s) for s in row] for row in scores])
    generator = np.random.default_rng(0)
    found = []
    for _ in range(8):
        few = np.concatenate([generator.choice(40, 5, replace=False) + 40 * kind for kind in (0, 1)])
        choice = choose_by_labels(cells, images[few], defective[few], grid)
        found.append(values[grid.components.index(choice.components), grid.sigmas.index(choice.sigma)])
    assert np.mean(found) > values.max() - 0.05


def test_the_order_of_labelled_images_does_not_matter(fitted):
    images, defective = labelled()
    order = np.random.default_rng(0).permutation(len(images))
    assert choose_by_labels(fitted, images[order], defective[order], GRID) == choose_by_labels(
        fitted, images, defective, GRID
    )


@pytest.mark.parametrize("label", [False, True])
def test_labels_of_one_class_are_refused(fitted, label):
    images, _ = labelled(2)
    with pytest.raises(InputError, match=f"4 labelled images, {4 * label} of them defective; expected good and"):
        choose_by_labels(fitted, images, np.full(4, label), GRID)


def test_as_many_labels_as_images_are_asked_for(fitted):
    images, _ = labelled(2)
    with pytest.raises(InputError, match=r"4 labelled images and labels of shape \(3,\)"):
        choose_by_labels(fitted, images, np.array([True, False, True]), GRID)


def test_images_of_another_size_are_refused(fitted):
    with pytest.raises(InputError, match="like the good ones"):
        choose_by_labels(fitted, np.zeros((2, SIDE, SIDE + 1), np.uint8), np.array([True, False]), GRID)


def test_without_labels_the_waves_are_modelled_and_noise_is_averaged(fitted):
    choice = choose_without_labels(fitted, good(4, 20), GRID, flaw_px=6)
    assert choice.components >= 3
    assert choice.sigma == 2.0
    images, defective = np.concatenate((good(5, 40), flawed(6, 40))), np.repeat([False, True], 40)
    scores = grid_scores(fitted, images, Grid([choice.components], [0.0, choice.sigma]))[0]
    squared, chosen = (np.median(of_sigma[defective]) / np.quantile(of_sigma[~defective], 0.95) for of_sigma in scores)
    assert chosen > max(1, squared)


def test_on_real_cells_the_rule_comes_near_the_best_that_labels_could_choose():
    pytest.importorskip("elpv_dataset")
    cv2 = pytest.importorskip("cv2")
    split = read_elpv("mono").split(100, 20, 0)
    test = [
        *[item for item in split.test if not item.is_defective][:40],
        *[i for i in split.test if i.is_defective][::8],
    ]

    def read(paths):
        return np.stack([cv2.resize(read_image(path), (48, 48), interpolation=cv2.INTER_AREA) for path in paths])

    cells = principal_components(read(split.fit), 32)
    grid = Grid((2, 8, 32), (0.0, 1.0, 2.0, 3.0))
    choice = choose_without_labels(cells, read(split.calibration), grid)
    defective = np.array([item.is_defective for item in test])
    scores = grid_scores(cells, read([item.path for item in test]), grid)
    values = np.array([[average_precision_score(defective, s) for s in row] for row in scores])
    chosen = values[grid.components.index(choice.components), grid.sigmas.index(choice.sigma)]
    assert chosen > values.max() - 0.03
    assert chosen > values[:, 0].max()


def test_smaller_flaws_ask_for_narrower_gaussians(fitted):
    grid = Grid((3,), (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0))
    small, large = (choose_without_labels(fitted, good(4, 20), grid, flaw_px=size).sigma for size in (1, 12))
    assert small < large


def test_a_choice_without_labels_is_always_the_same(fitted):
    assert choose_without_labels(fitted, good(4, 9), GRID) == choose_without_labels(fitted, good(4, 9), GRID)


def test_good_images_that_leave_nothing_are_no_division_by_zero():
    constant = np.repeat(np.arange(0, 250, 10, dtype=np.uint8), SIDE * SIDE).reshape(-1, SIDE, SIDE)
    exact = principal_components(constant, 1)
    choice = choose_without_labels(
        exact, np.full((5, SIDE, SIDE), np.round(exact.mean[0]), np.uint8), Grid((1,), (0.0,))
    )
    assert np.isfinite(choice.value)


def test_too_few_good_images_are_refused(fitted):
    with pytest.raises(InputError, match="4 held-out good images; expected at least 5"):
        choose_without_labels(fitted, good(4, 4), GRID)


@pytest.mark.parametrize("size", [0, 0.5, 17, np.nan])
def test_a_flaw_that_does_not_fit_is_refused(fitted, size):
    with pytest.raises(InputError, match="expected 1 px to half of a side"):
        choose_without_labels(fitted, good(4, 5), GRID, flaw_px=size)


@pytest.mark.parametrize("values", [(), (0, 1), (4, 2), (2, 2), (float("nan"),)])
def test_components_that_cannot_be_tried_are_refused(values):
    with pytest.raises(InputError, match=r"components .* to try"):
        Grid(values)


def test_sigmas_that_cannot_be_tried_are_refused():
    with pytest.raises(InputError, match=r"sigmas .* to try"):
        Grid((1,), (-1.0, 2.0))


def test_more_components_than_were_fitted_are_left_out_or_refused(fitted):
    assert Grid().up_to(20).components == [1, 2, 4, 8, 16]
    with pytest.raises(InputError, match=r"\[32\] components to try of 16"):
        choose_without_labels(fitted, good(4, 5), Grid((32,)))


@pytest.mark.parametrize("channels", [1, 3])
def test_memory_does_not_grow_with_the_images_and_is_what_is_announced(channels):
    shape = (96, 96, channels)[: 2 + (channels > 1)]
    images = np.random.default_rng(0).integers(0, 256, (60, *shape), np.uint8)
    fitted = principal_components(images[:20], 8)
    grid, peaks = Grid((1, 8), (0.0, 1.0)), []
    choose_without_labels(fitted, images[:5], grid)  # modules are imported at the first call
    tracemalloc.start()
    try:
        for count in (5, 60):
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            choose_without_labels(fitted, images[:count], grid)
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    needed = working_bytes(images[0].size)
    assert abs(peaks[1] - peaks[0]) < 0.1 * needed
    assert 0.5 * needed <= peaks[1] <= needed + 20_000


def test_a_score_does_not_depend_on_the_images_beside_it(fitted):
    images = flawed(3, 4)
    scores = grid_scores(fitted, images, GRID)
    for index in range(4):
        np.testing.assert_array_equal(grid_scores(fitted, images[index : index + 1], GRID)[..., 0], scores[..., index])
