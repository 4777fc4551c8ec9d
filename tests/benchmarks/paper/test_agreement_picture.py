from pathlib import Path

import numpy as np
import pytest

from flawline.benchmarks.paper.agreement_picture import picture_of_agreement
from flawline.runtime.errors import InputError

pytest.importorskip("matplotlib")
cv2 = pytest.importorskip("cv2")


def test_bars_are_as_high_as_the_shares(tmp_path: Path) -> None:
    shares = {"normal": [0.0, 0.25, 0.75], "novel": [0.5, 0.5, 0.0]}
    picture_of_agreement(tmp_path / "a.png", shares, title="agreement")
    drawn = cv2.imread(str(tmp_path / "a.png")).astype(int)
    # Bars of `normal` are blue, without hatching: the taller one has as many rows for its share as the other.
    blue = drawn[:, :, 0] - drawn[:, :, 2] > 100
    heights = np.unique(blue[:, : drawn.shape[1] * 4 // 5].sum(axis=0))
    tall, short = blue.sum(axis=0).max(), heights[heights > 100][0]
    assert tall / short == pytest.approx(3, abs=0.15)


@pytest.mark.parametrize("frequencies", [{}, {"normal": [0.5, 0.5], "novel": [1.0]}])
def test_groups_that_cannot_stand_side_by_side_are_refused(frequencies: dict[str, list[float]], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected at least one group, and equally many in each"):
        picture_of_agreement(tmp_path / "a.png", frequencies, title="agreement")
    assert list(tmp_path.iterdir()) == []
