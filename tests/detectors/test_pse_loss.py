import numpy as np
import pytest
import torch

from flawline.detectors import pse_loss
from flawline.detectors.pse_loss import PSELoss
from flawline.runtime.errors import InputError
from flawline.runtime.kernels import implementations, proximally_sensitive_error

TOLERANCE = 1e-5


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def random_pair(rng, *shape):
    return rng.random(shape, np.float32), rng.random(shape, np.float32)


@pytest.mark.parametrize("implementation", implementations())
@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("sigma", [0.0, 0.4, 1.3, 2.0, 4.5])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 7, 33), (3, 1, 65, 131), (1, 1, 3, 520)])
def test_loss_is_the_error_that_the_kernels_find(shape, sigma, normalised, implementation, rng):
    image, reconstruction = random_pair(rng, *shape)
    error = proximally_sensitive_error(
        image, reconstruction, sigma, normalised=normalised, implementation=implementation
    )
    expected = error.mean.astype(np.float64).mean()
    loss = PSELoss(sigma, normalised=normalised)(torch.from_numpy(reconstruction), torch.from_numpy(image))
    np.testing.assert_allclose(loss.item(), expected, rtol=TOLERANCE)


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("sigma", [0.5, 1.5, 4.0])
def test_products_and_convolutions_are_one_loss_of_one_gradient(sigma, normalised, rng, monkeypatch):
    image, start = (torch.from_numpy(rng.random((2, 3, 11, 14))) for _ in range(2))
    loss, found = PSELoss(sigma, normalised=normalised), []
    for longest_px in (14, 13):
        monkeypatch.setattr(pse_loss, "_LONGEST_PRODUCT_PX", longest_px)
        reconstruction = start.clone().requires_grad_()
        value = loss(reconstruction, image)
        found.append((value.detach(), *torch.autograd.grad(value, reconstruction)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-15)


def test_at_sigma_0_it_is_the_mean_squared_error(rng):
    image, reconstruction = (torch.from_numpy(one) for one in random_pair(rng, 2, 3, 9, 12))
    loss = PSELoss(0)(reconstruction, image)
    torch.testing.assert_close(loss, torch.nn.functional.mse_loss(reconstruction, image), rtol=1e-6, atol=0)


@pytest.mark.parametrize("longest_px", [5, 4], ids=["products", "convolutions"])
@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("sigma", [0.0, 0.5, 1.5])
def test_gradients_are_those_of_small_steps(sigma, normalised, longest_px, rng, monkeypatch):
    monkeypatch.setattr(pse_loss, "_LONGEST_PRODUCT_PX", longest_px)
    pair = [torch.from_numpy(rng.random((1, 2, 4, 5))).requires_grad_() for _ in range(2)]
    loss = PSELoss(sigma, normalised=normalised)
    assert torch.autograd.gradcheck(loss, pair)
    assert torch.autograd.gradgradcheck(loss, pair)


def test_descent_finds_the_image(rng):
    image, start = (torch.from_numpy(one) for one in random_pair(rng, 1, 1, 8, 8))
    reconstruction = start.clone().requires_grad_()
    loss = PSELoss(0.7)
    optimiser = torch.optim.Adam([reconstruction], lr=0.02)
    first = loss(reconstruction, image).item()
    for _ in range(100):
        optimiser.zero_grad()
        loss(reconstruction, image).backward()
        optimiser.step()
    assert loss(reconstruction, image).item() < 0.01 * first


def test_taps_are_in_no_checkpoint_and_follow_the_dtype(rng):
    loss = PSELoss(2.0)
    assert not loss.state_dict()
    single, double = (
        loss(*(torch.from_numpy(one).to(dtype) for one in random_pair(rng, 1, 1, 9, 9)))
        for dtype in (torch.float32, torch.float64)
    )
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((4, 4), (4, 4)), r"reconstruction: received \(4, 4\), expected \(B, channels, height, width\)"),
        (((0, 1, 4, 4), (0, 1, 4, 4)), r"reconstruction: received \(0, 1, 4, 4\)"),
        # These would broadcast.
        (((2, 1, 4, 4), (1, 1, 4, 4)), r"image: received \(1, 1, 4, 4\), expected \(2, 1, 4, 4\)"),
    ],
)
def test_what_is_no_pair_of_images_is_refused(shapes, message):
    with pytest.raises(InputError, match=message):
        PSELoss(1.0)(*(torch.zeros(shape) for shape in shapes))


@pytest.mark.parametrize(("sigma", "message"), [(-1, "sigma: received -1"), (float("nan"), "sigma: received nan")])
def test_sigma_out_of_range_is_refused(sigma, message):
    with pytest.raises(InputError, match=message):
        PSELoss(sigma)
