import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real images and weights that is too large for the repository."""
    folder = os.environ.get("FLAWLINE_DATA")
    if folder is None or not Path(folder).is_dir():
        pytest.skip("FLAWLINE_DATA does not name a folder with magnetic_tile/, aitex/ and resnet18/")
    return Path(folder)
