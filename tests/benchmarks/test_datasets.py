from pathlib import Path

import pytest

from flawline.__main__ import main
from flawline.benchmarks import datasets
from flawline.runtime.errors import InputError


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    for name in ("train/good/a.png", "train/good/b.png", "train/good/c.png", "test/good/d.png", "test/crack/e.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


def test_layout_without_masks(layout):
    dataset = datasets.read_mvtec(layout)
    assert [path.name for path in dataset.good] == ["a.png", "b.png", "c.png"]
    assert [(item.path.name, item.kind, item.is_defective) for item in dataset.test] == [
        ("e.png", "crack", True),
        ("d.png", "good", False),
    ]
    assert not dataset.has_masks


def test_masks_are_found_and_a_missing_one_is_refused(layout):
    (layout / "ground_truth/crack").mkdir(parents=True)
    with pytest.raises(InputError, match=r"e\.png: no mask"):
        datasets.read_mvtec(layout)
    mask = layout / "ground_truth/crack/e_mask.png"
    mask.write_bytes(b"")
    dataset = datasets.read_mvtec(layout)
    assert dataset.has_masks
    assert [item.mask for item in dataset.test] == [mask, None]


def test_folder_without_test_is_refused(tmp_path):
    with pytest.raises(InputError, match="no folder test/"):
        datasets.open_dataset(str(tmp_path))


@pytest.mark.parametrize(("name", "received"), [("nowhere", "does not exist"), ("file", "is a file")])
def test_what_is_no_folder_is_told_what_is_expected(name, received, tiny_bundle, tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"")
    assert main(["evaluate", str(tiny_bundle), str(tmp_path / name)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        f"flawline evaluate: {tmp_path / name} {received}; expected a folder with test/good, test/KIND and, if there are "
        "masks, ground_truth/KIND: name the one that holds test/\n"
    )


def test_a_name_that_does_not_exist_is_told_what_does():
    message = "elpv-mno does not exist; expected elpv-mono, elpv-poly or a folder in the MVTec layout"
    with pytest.raises(InputError, match=message):
        datasets.open_dataset("elpv-mno")


def test_split_is_disjoint_and_repeats(layout):
    dataset = datasets.read_mvtec(layout)
    split = dataset.split(2, 1, seed=3)
    assert not set(split.fit) & set(split.calibration)
    assert set(split.fit) | set(split.calibration) == set(dataset.good)
    assert split == dataset.split(None, 1, seed=3)
    assert len({dataset.split(1, 1, seed).fit for seed in range(20)}) == 3


def test_too_many_images_are_refused(layout):
    with pytest.raises(InputError, match="4 good images asked for to fit and calibrate, 3 are there"):
        datasets.read_mvtec(layout).split(3, 1, seed=0)


def test_solar_cells_test_on_what_the_fit_leaves():
    pytest.importorskip("elpv_dataset")
    dataset = datasets.open_dataset("elpv-mono")
    assert dataset.terms is not None
    assert "NC" in dataset.terms
    assert len(dataset.test) == 313
    split = dataset.split(300, 100, seed=0)
    good = [item.path for item in split.test if not item.is_defective]
    assert len(good) == len(dataset.good) - 400
    assert not set(good) & (set(split.fit) | set(split.calibration))
    assert all(path.is_file() for path in split.fit)


def test_shared_good_images_are_left_to_test_on_by_default(layout):
    good = tuple(layout / f"{number}.png" for number in range(400))
    flawed = (datasets.Item(layout / "flawed.png", "defective"),)
    shared = datasets.Dataset("cells", good, flawed, shares_good=True)
    split = shared.split(None, 60, seed=0)
    assert (len(split.fit), len(split.calibration), len(split.test)) == (300, 60, 41)
    with pytest.raises(InputError, match=r"no good image is left to test on.* --fit-images N"):
        shared.split(340, 60, seed=0)


def test_a_layout_without_good_test_images_is_refused(layout):
    (layout / "test/good/d.png").unlink()
    with pytest.raises(InputError, match="put some into test/good"):
        datasets.read_mvtec(layout).split(2, 1, seed=0)


def test_magnetic_tiles(shared_data):
    dataset = datasets.open_dataset(str(shared_data / "magnetic_tile"))
    assert len(dataset.good) == 702
    assert len(dataset.test) == 642
    assert dataset.has_masks
