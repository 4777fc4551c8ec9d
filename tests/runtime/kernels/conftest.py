from collections.abc import Callable

import numpy as np
import pytest

from flawline.runtime.kernels import Gaussians, pack, unpack

TIES = ("position", "column", "global", "classes")


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Fresh for each test, the same in each run."""
    return np.random.default_rng(list(request.node.nodeid.encode()))


@pytest.fixture
def make_gaussians(rng: np.random.Generator) -> Callable[..., Gaussians]:
    """Random well-conditioned Gaussians for a map of `size`, tied as asked; "classes" are as many as positions."""

    def make(size: tuple[int, int], d: int, *, tie: str = "position", components: int = 1, dtype: str = "float16"):
        height, width = size
        positions = np.arange(height * width, dtype=np.int32)
        assignment = {"column": positions % width, "global": positions * 0}.get(tie, positions)
        count = int(assignment.max()) + 1
        root = rng.standard_normal((count, components, d, d)) / np.sqrt(d)
        # The tril removes what pivoting leaves above the diagonal.
        factor = np.tril(np.linalg.inv(np.linalg.cholesky(root @ root.swapaxes(-1, -2) + 0.1 * np.eye(d))))
        scales = np.exp2(rng.integers(-3, 4, (count, components))).astype(np.float32)
        means = rng.standard_normal((count, components, d)).astype(np.float32)
        return Gaussians(means, pack(factor / scales[..., None, None], dtype), scales, assignment)

    return make


@pytest.fixture
def textbook() -> Callable[[np.ndarray, Gaussians], np.ndarray]:
    """The formula as papers print it, float64: sqrt((x - mean)^T inverse (x - mean)), nearest component."""

    def distances(x: np.ndarray, gaussians: Gaussians) -> np.ndarray:
        factors = unpack(gaussians.factors, gaussians.dimension).astype(np.float64)
        factors *= gaussians.scales[..., None, None]
        inverses = (factors.swapaxes(-1, -2) @ factors)[gaussians.assignment]
        centred = x[:, :, None].astype(np.float64) - gaussians.means[gaussians.assignment]
        forms = (centred[..., None, :] @ inverses @ centred[..., None])[..., 0, 0]
        return np.sqrt(forms.min(-1))

    return distances
