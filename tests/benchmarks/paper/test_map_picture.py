import numpy as np
import pytest

from flawline.benchmarks.paper.map_picture import picture_of_maps
from flawline.runtime.errors import InputError

pytest.importorskip("matplotlib")
cv2 = pytest.importorskip("cv2")


def columns(count=3):
    generator = np.random.default_rng(0)
    return {
        "input": generator.integers(0, 256, (count, 12, 10), np.uint8),
        "saliency": generator.random((count, 12, 10)).astype(np.float32),
        "nothing": np.zeros((count, 12, 10), np.float32),
    }


def test_maps_are_drawn_side_by_side_and_always_alike(tmp_path):
    for name in ("a.png", "b.png"):
        picture_of_maps(tmp_path / name, columns(), ["normal", "normal", "novel"], title="maps")
    drawn = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_GRAYSCALE)
    assert drawn.std() > 20
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_column_with_too_few_maps_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"column 'input' of shape \(3, 12, 10\); expected \(2,"):
        picture_of_maps(tmp_path / "x.png", columns(), ["normal", "novel"], title="maps")
    with pytest.raises(InputError, match="no column to draw"):
        picture_of_maps(tmp_path / "x.png", {}, ["normal"], title="maps")
    assert list(tmp_path.iterdir()) == []
