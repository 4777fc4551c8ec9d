"""The center loss against equations 2 to 4 of Wen et al. 2016, summed one by one."""

import numpy as np
import pytest
import torch
from torch import Tensor

from flawline.detectors.center_loss import CenterLoss
from flawline.runtime.errors import InputError

CLASSES, DIMENSION = 5, 7
# Class 2 is in no batch.
LABELS = torch.tensor([0, 3, 3, 1, 3, 4, 0])


def case(dtype: torch.dtype = torch.float64, rate: float = 0.5) -> tuple[CenterLoss, Tensor]:
    generator = torch.Generator().manual_seed(0)
    loss = CenterLoss(CLASSES, DIMENSION, rate=rate).to(dtype)
    loss.centers.copy_(torch.randn(CLASSES, DIMENSION, generator=generator, dtype=dtype))
    return loss, torch.randn(len(LABELS), DIMENSION, generator=generator, dtype=dtype)


def test_loss_is_half_the_mean_squared_distance_from_the_centers() -> None:
    loss, features = case()
    x, centers = features.numpy(), loss.centers.numpy()
    expected = sum(0.5 * np.sum((x[i] - centers[label]) ** 2) for i, label in enumerate(LABELS.tolist()))
    assert float(loss(features, LABELS)) == pytest.approx(expected / len(LABELS), rel=1e-12)


def test_gradient_is_the_difference_from_the_center() -> None:
    """Equation 3, over the size of the batch; autograd's own against finite differences as well."""
    loss, features = case()
    features.requires_grad_()
    loss(features, LABELS).backward()
    assert features.grad is not None
    torch.testing.assert_close(features.grad, (features - loss.centers[LABELS]).detach() / len(LABELS))
    assert torch.autograd.gradcheck(lambda x: loss(x, LABELS), (features,))


def test_centers_have_no_gradient_and_stay_while_the_loss_is_computed() -> None:
    loss, features = case()
    before = loss.centers.clone()
    loss(features.requires_grad_(), LABELS).backward()
    assert torch.equal(loss.centers, before)
    assert not list(loss.parameters())
    assert list(loss.state_dict()) == ["centers"]


@pytest.mark.parametrize("rate", [0.25, 0.5, 1.0])
def test_centers_move_by_the_mean_difference_over_one_more(rate: float) -> None:
    """Equation 4 and the update of the paper's algorithm 1."""
    loss, features = case(rate=rate)
    x, expected = features.numpy(), loss.centers.numpy().copy()
    before = expected.copy()
    for j in range(CLASSES):
        mine = [i for i, label in enumerate(LABELS.tolist()) if label == j]
        delta = sum((before[j] - x[i] for i in mine), np.zeros(DIMENSION)) / (1 + len(mine))
        expected[j] -= rate * delta
    loss.update(features.requires_grad_(), LABELS)
    np.testing.assert_allclose(loss.centers.numpy(), expected, rtol=1e-12)
    np.testing.assert_array_equal(loss.centers[2].numpy(), before[2])
    assert not loss.centers.requires_grad


def test_centers_reach_the_means_of_their_classes() -> None:
    loss, features = case(torch.float32)
    for _ in range(200):
        loss.update(features, LABELS)
    for j in (0, 1, 3, 4):
        torch.testing.assert_close(loss.centers[j], features[j == LABELS].mean(0))


def test_features_of_another_type_move_centers_of_theirs() -> None:
    loss, features = case(torch.float32)
    loss.update(features.bfloat16(), LABELS)
    assert loss.centers.dtype == torch.float32


@pytest.mark.parametrize("rate", [0.0, -0.5, 1.5, float("nan")])
def test_rate_out_of_its_range_is_refused(rate: float) -> None:
    with pytest.raises(InputError, match=r"rate of the centers .*: expected above 0, up to 1"):
        CenterLoss(3, 2, rate=rate)
