import numpy as np
import pytest

from flawline.benchmarks import metrics
from flawline.runtime.errors import InputError

cv2 = pytest.importorskip("cv2")


def textbook_pixel_auroc(maps, masks):
    scores = np.concatenate([m.ravel() for m in maps])
    flawed = np.concatenate([m.ravel() for m in masks])
    wins = scores[flawed][:, None] - scores[~flawed][None, :]
    return float(((wins > 0) + 0.5 * (wins == 0)).mean())


def textbook_aupro(maps, masks, limit):
    """The curve, threshold by threshold and region by region, integrated by the trapezoidal rule."""
    regions = []
    for scores, mask in zip(maps, masks, strict=True):
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        regions += [scores[labels == label] for label in range(1, count)]
    normal = np.concatenate([scores[~mask] for scores, mask in zip(maps, masks, strict=True)])
    rates, overlaps = [0.0], [0.0]
    for threshold in np.unique(np.concatenate([m.ravel() for m in maps]))[::-1]:
        rates.append(float(np.mean(normal >= threshold)))
        overlaps.append(float(np.mean([np.mean(region >= threshold) for region in regions])))
    area = 0.0
    for i in range(1, len(rates)):
        left, right = rates[i - 1], min(rates[i], limit)
        if right <= left:
            continue
        slope = (overlaps[i] - overlaps[i - 1]) / (rates[i] - rates[i - 1])
        area += (right - left) * (overlaps[i - 1] + 0.5 * slope * (right - left))
    return area / limit


def random_set(seed, *, levels=None, images=5):
    """Maps and masks of different sizes; with few levels most scores are tied."""
    generator = np.random.default_rng(seed)
    maps, masks = [], []
    for _ in range(images):
        shape = tuple(generator.integers(6, 14, 2))
        mask = generator.random(shape) < 0.15
        scores = generator.normal(size=shape) + mask
        if levels is not None:
            scores = np.round(scores * levels) / levels
        maps.append(scores.astype(np.float32))
        masks.append(mask)
    masks[0][:] = False
    return maps, masks


@pytest.mark.parametrize("levels", [None, 1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_pixel_auroc_equals_the_textbook(seed, levels):
    maps, masks = random_set(seed, levels=levels)
    assert metrics.pixel_auroc(maps, masks) == pytest.approx(textbook_pixel_auroc(maps, masks), abs=1e-12)


@pytest.mark.parametrize("limit", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("levels", [None, 1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_aupro_equals_the_textbook(seed, levels, limit):
    maps, masks = random_set(seed, levels=levels)
    assert metrics.aupro(maps, masks, limit) == pytest.approx(textbook_aupro(maps, masks, limit), abs=1e-12)


def test_chunks_do_not_change_the_result(monkeypatch):
    maps, masks = random_set(7, levels=2)
    whole = metrics.pixel_auroc(maps, masks), metrics.aupro(maps, masks)
    monkeypatch.setattr(metrics, "CHUNK_PIXELS", 50)
    assert (metrics.pixel_auroc(maps, masks), metrics.aupro(maps, masks)) == whole


def test_perfect_and_constant_maps():
    masks = [np.zeros((8, 8), bool), np.zeros((8, 8), bool)]
    masks[1][2:4, 2:4] = True
    perfect = [mask.astype(np.float32) for mask in masks]
    constant = [np.ones((8, 8), np.float32)] * 2
    assert metrics.pixel_auroc(perfect, masks) == metrics.aupro(perfect, masks) == 1.0
    assert metrics.pixel_auroc(constant, masks) == 0.5
    # One threshold only: the straight line from (0, 0) to (1, 1), cut at 0.3.
    assert metrics.aupro(constant, masks) == pytest.approx(0.15)


def test_diagonal_neighbours_are_one_region():
    mask = np.zeros((6, 6), bool)
    mask[1, 1] = mask[2, 2] = True
    found_half = np.zeros((6, 6), np.float32)
    found_half[1, 1] = 1
    assert metrics.aupro([found_half], [mask], 0.3) == pytest.approx(textbook_aupro([found_half], [mask], 0.3))


def test_image_metrics_match_their_definition():
    defective = np.array([False, False, True, True])
    scores = np.array([0.1, 0.4, 0.35, 0.8])
    assert metrics.image_auroc(defective, scores) == 0.75
    assert metrics.average_precision(defective, scores) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


@pytest.mark.parametrize("label", [True, False])
def test_one_class_is_refused(label):
    with pytest.raises(InputError, match="good and defective ones are needed"):
        metrics.image_auroc(np.full(3, label), np.arange(3.0))
    with pytest.raises(InputError, match="both are needed"):
        metrics.pixel_auroc([np.zeros((2, 2), np.float32)], [np.full((2, 2), label)])


def test_nan_is_refused():
    with pytest.raises(InputError, match="NaN"):
        metrics.image_auroc(np.array([True, False]), np.array([np.nan, 1.0]))
    with pytest.raises(InputError, match="anomaly map 0 holds NaN"):
        metrics.pixel_auroc([np.full((2, 2), np.nan, np.float32)], [np.eye(2, dtype=bool)])


def test_shape_of_map_and_mask_must_agree():
    with pytest.raises(InputError, match=r"anomaly map 0 is \(2, 3\), its mask \(2, 2\)"):
        metrics.aupro([np.zeros((2, 3), np.float32)], [np.eye(2, dtype=bool)])
