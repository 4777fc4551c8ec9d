"""Who is fitted and who is tested, and what a tile is."""

import json
import shutil

import numpy as np
import pytest

from flawline.benchmarks.web.aitex import FIT_GOOD, flawed_pixels, folds, read_flaws, read_roll, validation
from flawline.runtime.errors import InputError

from .conftest import DEFECTIVE, GOOD, HEIGHT, TILE_PX, WIDTH


def test_no_strip_is_fitted_and_tested_and_every_defective_one_is_tested_once(webs):
    roll = read_roll(webs, "07")
    assert (roll.good, len(roll.strips)) == (GOOD, GOOD + DEFECTIVE)
    both = folds(roll)
    for fold in both:
        assert not set(fold.fit) & set(fold.test)
        assert set(fold.fit) | set(fold.test) == set(range(len(roll.strips)))
        assert [strip for strip in fold.fit if strip < GOOD] == list(range(FIT_GOOD))
    tested = sorted(strip for fold in both for strip in fold.test if strip >= GOOD)
    assert tested == list(range(GOOD, GOOD + DEFECTIVE))


def test_validation_sees_only_strips_that_its_fold_fits(webs):
    roll = read_roll(webs, "07")
    for fold in folds(roll):
        halves = validation(roll, fold)
        assert len(halves) == 2
        for half in halves:
            assert set(half.fit) | set(half.test) == set(fold.fit)
            assert not set(half.fit) & set(half.test)
            assert min(half.test) < GOOD <= max(half.test)


def test_flawed_pixels_are_counted_per_tile_also_of_the_last_smaller_one():
    mask = np.zeros((10, 25), np.uint8)
    mask[0, :3] = 255
    mask[9, 24] = 128
    mask[5, 15] = 127
    np.testing.assert_array_equal(flawed_pixels(mask, 10), [[3, 0, 1]])
    np.testing.assert_array_equal(flawed_pixels(mask, 8), [[3, 0, 0, 0], [0, 0, 0, 1]])


def test_flaws_are_those_of_the_strips_mask(webs):
    roll = read_roll(webs, "07")
    assert not read_flaws(roll.strips[0], (HEIGHT, WIDTH), TILE_PX).any()
    flaws = read_flaws(roll.strips[-1], (HEIGHT, WIDTH), TILE_PX)
    assert flaws.nonzero()[1].tolist() == [400 // TILE_PX]
    assert flaws.sum() == 20 * 24


def test_a_mask_of_another_size_is_refused(webs):
    with pytest.raises(InputError, match=f"has {HEIGHT} lines of {WIDTH} px; expected 32 of {WIDTH}"):
        read_flaws(read_roll(webs, "07").strips[-1], (32, WIDTH), TILE_PX)


def test_a_roll_that_is_not_there_is_refused(webs, tmp_path):
    with pytest.raises(InputError, match="no roll '99'; expected one of 07"):
        read_roll(webs, "99")
    with pytest.raises(InputError, match=r"streams\.json"):
        read_roll(tmp_path, "07")


def test_an_index_of_another_form_is_refused(tmp_path):
    (tmp_path / "streams.json").write_text(json.dumps({"07": ["a.png"]}))
    with pytest.raises(InputError, match="expected the strips of each roll"):
        read_roll(tmp_path, "07")


def test_a_missing_mask_and_too_few_strips_are_refused(webs, tmp_path):
    copy = shutil.copytree(webs, tmp_path / "webs")
    (copy / "mask/0003_002_07.png").unlink()
    with pytest.raises(InputError, match=r"0003_002_07\.png is missing"):
        read_roll(copy, "07")
    for path in (copy / "defect").glob("000[0-2]*"):
        path.unlink()
    with pytest.raises(InputError, match=f"{GOOD} good and 3 defective strips"):
        read_roll(copy, "07")
