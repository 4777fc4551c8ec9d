"""Real magnetic tiles: good ones to fit, and a few labelled ones of three kinds."""

import shutil
from pathlib import Path

import pytest

from flawline.runtime.images import list_images

KINDS = ("good", "blowhole", "crack")


@pytest.fixture(scope="session")
def good_tiles(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 60 good tiles."""
    folder = tmp_path_factory.mktemp("tiles")
    for path in list_images(shared_data / "magnetic_tile" / "train" / "good")[:60]:
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="session")
def labelled_tiles(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `test/good`, `test/blowhole` and `test/crack` of eight tiles each."""
    root = tmp_path_factory.mktemp("labelled")
    for kind in KINDS:
        (root / "test" / kind).mkdir(parents=True)
        for path in list_images(shared_data / "magnetic_tile" / "test" / kind)[:8]:
            shutil.copy(path, root / "test" / kind)
    return root
