from collections.abc import Callable

import numpy as np
import pytest

from flawline.runtime.kernels import Gaussians, pack, pack_int8, unpack

TIES = ("position", "column", "global", "classes")


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Fresh for each test, the same in each run."""
    return np.random.default_rng(list(request.node.nodeid.encode()))


@pytest.fixture
def make_gaussians(rng: np.random.Generator) -> Callable[..., Gaussians]:
    """Random well-conditioned Gaussians for a map of `size`, tied as asked; "classes" are as many as positions.

    With a rank, those of covariances of that rank plus a multiple of the identity, in the Woodbury form.
    """

    def make(
        size: tuple[int, int],
        d: int,
        *,
        tie: str = "position",
        components: int = 1,
        dtype: str = "float16",
        rank: int | None = None,
    ):
        height, width = size
        positions = np.arange(height * width, dtype=np.int32)
        assignment = {"column": positions % width, "global": positions * 0}.get(tie, positions)
        count = int(assignment.max()) + 1
        rows = rng.standard_normal((count, components, rank or d, d)) / np.sqrt(d)
        # The triangles remove what pivoting and rounding leave above the diagonal.
        lower = np.linalg.cholesky(rows @ rows.swapaxes(-1, -2) + 0.1 * np.eye(rank or d))
        factor = np.tril(np.linalg.inv(lower))
        if rank:
            rotated = np.linalg.qr((factor @ rows)[..., ::-1], mode="r")[..., ::-1, ::-1]
            factor = np.tril(rotated, d - rank)
        scales = np.exp2(rng.integers(-3, 4, (count, components))).astype(np.float32)
        means = rng.standard_normal((count, components, d)).astype(np.float32)
        scaled = factor if rank else factor / scales[..., None, None]
        packed, row_scales = pack_int8(scaled) if dtype == "int8" else (pack(scaled, dtype), None)
        return Gaussians(means, packed, scales, assignment, row_scales, rank)

    return make


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
