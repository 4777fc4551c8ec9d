import numpy as np
import pytest

from flawline.runtime.images import write_image


def web(lines, width=32, seed=0, channels=1):
    shape = (lines, width) if channels == 1 else (lines, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Three pieces of web, of 40, 24 and 33 lines."""
    folder = tmp_path / "web"
    folder.mkdir()
    for number, lines in enumerate((40, 24, 33)):
        write_image(folder / f"{number}.png", web(lines, seed=number))
    return folder
