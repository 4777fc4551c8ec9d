from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from flawline.runtime.kernels import Gaussians, unpack
from tests.runtime.kernels.cases import random_gaussians


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Fresh for each test, the same in each run."""
    return np.random.default_rng(list(request.node.nodeid.encode()))


@pytest.fixture
def make_gaussians(rng: np.random.Generator) -> Callable[..., Gaussians]:
    """Makes random Gaussians, as `random_gaussians` does."""
    return partial(random_gaussians, rng)


@pytest.fixture
def textbook() -> Callable[[np.ndarray, Gaussians], np.ndarray]:
    """The formula as papers print it, float64: sqrt((x - mean)^T inverse (x - mean)), nearest component."""

    def distances(x: np.ndarray, gaussians: Gaussians) -> np.ndarray:
        factors = unpack(gaussians.factors, gaussians.dimension, gaussians.rank, gaussians.row_scales)
        inverses = factors.swapaxes(-1, -2).astype(np.float64) @ factors
        if gaussians.form == "woodbury":
            inverses = np.eye(gaussians.dimension) - inverses
        inverses = (inverses * gaussians.scales[..., None, None].astype(np.float64) ** 2)[gaussians.assignment]
        centred = np.moveaxis(x[:, :, None].astype(np.float64) - gaussians.means[gaussians.assignment], 0, -2)
        forms = ((centred @ inverses) * centred).sum(-1)
        return np.moveaxis(np.sqrt(forms.min(1)), -1, 0)

    return distances
