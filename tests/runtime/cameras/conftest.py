"""Cameras leave no thread behind."""

import pytest


@pytest.fixture(autouse=True)
def _threads(no_thread_is_left):
    pass
