"""Shrinkage of covariances towards a multiple of the identity, by scikit-learn's estimators."""

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt

from flawline.calibration.mixture import Mixture
from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    from sklearn import covariance as estimators
else:
    estimators = LazyModule("sklearn.covariance", "pip install 'flawline[fit]'")

Estimator = Literal["oas", "ledoit-wolf"]
ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)


def shrink(
    mixture: Mixture,
    shrinkage: Estimator | float,
    embeddings: npt.NDArray[np.float32] | None,
    assigned: npt.NDArray[np.int32],
) -> Mixture:
    """Replaces Sigma by (1 - s) Sigma + s mean(diag Sigma) I.

    Args:
        mixture: What was fitted.
        shrinkage: s itself, 0 to 1, or the estimator that chooses it per Gaussian (Chen et al. 2010; Ledoit and Wolf
            2004).
        embeddings: float32 (N, P, d), needed by an estimator.
        assigned: int32 (P,), the Gaussian of each position.

    Raises:
        InputError: s is not between 0 and 1, or an estimator is asked for with several components.
    """
    if isinstance(shrinkage, float):
        if not 0 <= shrinkage <= 1:
            raise InputError(f"shrinkage is {shrinkage}; expected 0 to 1, oas or ledoit-wolf")
        return mixture._replace(covariance=estimators.shrunk_covariance(mixture.covariance, shrinkage))
    if embeddings is None or mixture.mean.shape[1] > 1:
        raise InputError(f"shrinkage '{shrinkage}' is for one component; give a number instead")
    estimate = estimators.oas if shrinkage == "oas" else estimators.ledoit_wolf
    shrunk = np.empty_like(mixture.covariance)
    for g in range(len(shrunk)):
        values = embeddings[:, assigned == g].reshape(-1, embeddings.shape[2]).astype(np.float64)
        shrunk[g, 0] = estimate(values)[0]
    return mixture._replace(covariance=shrunk)
