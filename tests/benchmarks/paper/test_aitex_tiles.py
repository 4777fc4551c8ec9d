"""Tiles of a small fabric beside a dark table, cut as those of the AITEX set."""

import json

import numpy as np
import pytest

from flawline.benchmarks.paper.aitex_tiles import TileSet
from flawline.benchmarks.web.aitex import FIT_GOOD, folds, read_roll

cv2 = pytest.importorskip("cv2")

HEIGHT, WIDTH, TABLE = 256, 896, 100
GOOD, DEFECTIVE = FIT_GOOD + 2, 6


@pytest.fixture(scope="module")
def webs(tmp_path_factory):
    """Roll 07; each defective strip has a flaw of 400 px in one tile, and one of 9 px, too few, in another."""
    folder = tmp_path_factory.mktemp("webs")
    generator = np.random.default_rng(0)
    for name in ("good/07", "defect", "mask"):
        (folder / name).mkdir(parents=True)

    def fabric():
        strip = generator.normal(150, 6, (HEIGHT, WIDTH))
        strip[:, :TABLE] = generator.normal(20, 1, (HEIGHT, TABLE))
        return np.clip(strip, 0, 255).astype(np.uint8)

    names = [f"{number:04d}_000_07.png" for number in range(GOOD)]
    for name in names:
        cv2.imwrite(str(folder / "good/07" / name), fabric())
    for number in range(DEFECTIVE):
        strip, mask = fabric(), np.zeros((HEIGHT, WIDTH), np.uint8)
        for place in ((slice(20, 40), slice(400, 420)), (slice(200, 203), slice(600, 603))):
            strip[place], mask[place] = 90, 255
        cv2.imwrite(str(folder / "defect" / f"{number:04d}_002_07.png"), strip)
        cv2.imwrite(str(folder / "mask" / f"{number:04d}_002_07.png"), mask)
    (folder / "streams.json").write_text(json.dumps({"07": {"strips": names}}))
    return folder


def test_tiles_are_told_by_strips_and_lie_on_the_web(webs):
    tiles, roll = TileSet(webs, "07", seed=0), read_roll(webs, "07")
    for number, fold in enumerate(folds(roll)):
        split = tiles.split(number)
        tested = {roll.strips[strip].path.stem for strip in fold.test}
        for name, testing, choosing in zip(split.names, split.may_test, split.may_choose, strict=True):
            assert testing == (name.split("/")[0] in tested)
            assert choosing != testing
        # None reaches beyond 32 px within the edges of the web, which begins at 100 px.
        assert {int(name.rsplit("-", 1)[1]) for name in split.names} == {256, 384, 512, 640}
        kinds = np.array(split.kinds)
        for part in (split.may_test, split.may_choose):
            assert (kinds[part] == "flaw").sum() == DEFECTIVE // 2
        # What is fitted is on no list: 14 good strips of 8 tiles and 6 of each of 3, less a tenth.
        fitted = FIT_GOOD * 8 + 3 * 6
        assert len(split.fit) == fitted - fitted // 10
        labelled = {image.tobytes() for image in split.images}
        assert not labelled & {image.tobytes() for image in split.fit}


def test_flawless_tiles_of_defective_strips_are_tested_as_good(webs):
    split = TileSet(webs, "07", seed=0).split(0)
    defective = [
        kind
        for name, kind, testing in zip(split.names, split.kinds, split.may_test, strict=True)
        if testing and "_002_" in name
    ]
    assert defective.count("good") == 3 * 6
    assert defective.count("flaw") == 3
