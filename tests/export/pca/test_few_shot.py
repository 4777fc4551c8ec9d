"""A few labelled images, none of them a good image of the fit."""

import shutil

import numpy as np
import pytest

from flawline.calibration.good_images import check_images
from flawline.export.few_shot import read_few_shot
from flawline.runtime.errors import InputError
from flawline.runtime.images import list_images


@pytest.fixture(scope="module")
def good(good_tiles):
    return check_images(list_images(good_tiles)[:8])


def kinds(few_shot):
    return {name: sum(path.parent.name == name for path in few_shot.paths) for name in ("good", "blowhole", "crack")}


def test_as_many_of_each_kind_are_drawn(labelled_tiles, good):
    few_shot = read_few_shot(labelled_tiles, 5, good, seed=0, say=print)
    assert kinds(few_shot) == {"good": 5, "blowhole": 5, "crack": 5}
    np.testing.assert_array_equal(few_shot.defective, [path.parent.name != "good" for path in few_shot.paths])


def test_the_folder_of_the_kinds_serves_as_well(labelled_tiles, good):
    inside = read_few_shot(labelled_tiles / "test", 5, good, seed=0, say=print)
    assert inside.paths == read_few_shot(labelled_tiles, 5, good, seed=0, say=print).paths


def test_all_are_taken_where_there_are_no_more(labelled_tiles, good):
    assert kinds(read_few_shot(labelled_tiles, 9, good, seed=0, say=print)) == {"good": 8, "blowhole": 8, "crack": 8}


def test_the_seed_draws(labelled_tiles, good):
    first, again, other = (read_few_shot(labelled_tiles, 5, good, seed=seed, say=print).paths for seed in (0, 0, 1))
    assert first == again != other


def test_good_images_of_the_fit_are_left_out_whatever_their_names(labelled_tiles, good, tmp_path):
    shutil.copytree(labelled_tiles / "test", tmp_path, dirs_exist_ok=True)
    for index, path in enumerate(good.paths[:3]):
        shutil.copy(path, tmp_path / "good" / f"renamed_{index}.jpg")
    lines = []
    few_shot = read_few_shot(tmp_path, 100, good, seed=0, say=lines.append)
    assert kinds(few_shot)["good"] == 8
    assert lines == [f"left out of {tmp_path}: 3 good images that are among those of the fit as well"]


def test_good_images_that_all_are_of_the_fit_are_no_examples(labelled_tiles, good, tmp_path):
    shutil.copytree(labelled_tiles / "test" / "crack", tmp_path / "crack")
    (tmp_path / "good").mkdir()
    shutil.copy(good.paths[0], tmp_path / "good")
    with pytest.raises(InputError, match="1 good images, all of which are among those of the fit"):
        read_few_shot(tmp_path, 5, good, seed=0, say=print)


def test_a_defective_image_among_the_good_ones_is_named(labelled_tiles, good, tmp_path):
    shutil.copytree(labelled_tiles / "test", tmp_path, dirs_exist_ok=True)
    shutil.copy(good.paths[4], tmp_path / "crack" / "same.jpg")
    with pytest.raises(
        InputError, match=rf"same\.jpg, labelled defective, is also the good image .*{good.paths[4].name}"
    ):
        read_few_shot(tmp_path, 5, good, seed=0, say=print)
