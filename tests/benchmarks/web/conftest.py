"""A tiny fabric in the layout of the AITEX set."""

import json
from pathlib import Path

import numpy as np
import pytest

from flawline.benchmarks.web.aitex import FIT_GOOD

cv2 = pytest.importorskip("cv2")

HEIGHT, WIDTH, TABLE = 64, 640, 96
GOOD, DEFECTIVE = FIT_GOOD + 2, 6
TILE_PX = 64


def fabric(generator: np.random.Generator) -> np.ndarray:
    """Noise on a bright web beside a dark table, uint8 (64, 640)."""
    strip = generator.normal(150, 6, (HEIGHT, WIDTH))
    strip[:, :TABLE] = generator.normal(20, 1, (HEIGHT, TABLE))
    return np.clip(strip, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def webs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Roll 07: 16 good strips, and 6 with a grey patch each, all within the tile from pixel 384 on."""
    folder = tmp_path_factory.mktemp("webs")
    generator = np.random.default_rng(0)
    for name in ("good/07", "defect", "mask"):
        (folder / name).mkdir(parents=True)
    names = [f"{number:04d}_000_07.png" for number in range(GOOD)]
    for name in names:
        cv2.imwrite(str(folder / "good/07" / name), fabric(generator))
    for number in range(DEFECTIVE):
        strip, mask = fabric(generator), np.zeros((HEIGHT, WIDTH), np.uint8)
        place = slice(20, 40), slice(400, 424)
        strip[place], mask[place] = 90, 255
        cv2.imwrite(str(folder / "defect" / f"{number:04d}_002_07.png"), strip)
        cv2.imwrite(str(folder / "mask" / f"{number:04d}_002_07.png"), mask)
    # Other keys are of no concern here.
    (folder / "streams.json").write_text(json.dumps({"07": {"roll": "x", "strips": names, "longest_lines": 64}}))
    return folder
