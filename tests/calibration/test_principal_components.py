import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from flawline.calibration.principal_components import PrincipalComponents, principal_components
from flawline.runtime.errors import InputError, ResourceError


class Read:
    """Images made anew each time they are read, as files are."""

    def __init__(self, count, side=48, channels=None):
        self.count, self.side, self.channels, self.readings = count, side, channels, 0

    def __len__(self):
        return self.count

    def __iter__(self):
        self.readings += 1
        y, x = np.mgrid[: self.side, : self.side] / self.side
        for index in range(self.count):
            generator = np.random.default_rng(index)
            a, b, c = generator.normal(size=3)
            values = 128 + 30 * a * np.sin(7 * x) + 15 * b * np.cos(5 * y) + 5 * c * x * y
            values = values + generator.normal(0, 2, values.shape)
            if self.channels:
                values = values[..., None] * np.linspace(1, 0.5, self.channels)
            yield np.clip(values, 0, 255).astype(np.uint8)


def exact(images: Read, components: int):
    """Eigenvectors of the covariance by a full decomposition in float64."""
    values = np.stack([image if image.ndim == 2 else np.moveaxis(image, 2, 0) for image in images])
    flat = values.reshape(len(images), -1).astype(np.float64)
    mean = flat.mean(axis=0)
    _, singular, rows = np.linalg.svd(flat - mean, full_matrices=False)
    return mean, rows[:components], singular[:components] ** 2 / (len(images) - 1), flat


@pytest.mark.parametrize("channels", [None, 1, 3])
def test_mean_basis_and_variances_are_those_of_a_full_decomposition(channels):
    images = Read(60, channels=channels)
    fitted = principal_components(images, 3)
    mean, rows, variances, flat = exact(images, 3)
    np.testing.assert_allclose(fitted.mean, mean, atol=1e-4)
    np.testing.assert_allclose(np.abs((fitted.basis * rows).sum(axis=1)), 1, atol=1e-4)
    np.testing.assert_allclose(fitted.explained_variance, variances, rtol=1e-4)
    assert fitted.total_variance == pytest.approx(flat.var(axis=0, ddof=1).sum())
    assert fitted.shape == (channels or 1, 48, 48)
    assert images.readings == 4  # three of the fit, one of `exact`


def test_a_tail_of_pure_noise_costs_little_of_the_best_reconstruction():
    images = Read(120)
    fitted = principal_components(images, 25)
    mean, rows, _, flat = exact(images, 25)
    left = [((flat - mean) ** 2).sum() - (((flat - mean) @ basis.T) ** 2).sum() for basis in (fitted.basis, rows)]
    assert left[1] <= left[0] < 1.03 * left[1]


def test_rows_are_orthonormal_and_their_largest_number_is_positive():
    basis = principal_components(Read(60), 10).basis
    assert basis.dtype == np.float32
    np.testing.assert_allclose(basis @ basis.T, np.eye(10), atol=1e-5)
    assert (np.take_along_axis(basis, np.abs(basis).argmax(axis=1)[:, None], axis=1) > 0).all()


def test_equal_images_and_seed_give_equal_bits():
    first, second = (principal_components(Read(40), 6, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.basis, second.basis)
    np.testing.assert_array_equal(first.explained_variance, second.explained_variance)


def test_memory_does_not_grow_with_the_images():
    peaks = []
    for count in (100, 400):
        tracemalloc.start()
        principal_components(Read(count), 30)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.02 * peaks[0]


MEASURED = """
import numpy as np
from flawline.calibration.principal_components import principal_components, working_bytes
images = np.random.default_rng(0).integers(0, 256, (130, 192, 192), np.uint8)
principal_components(images[:, :16, :16], 60)
def peak():
    # Not ru_maxrss, which a process inherits from the one that started it.
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
before = peak()
principal_components(images, 60)
print(peak() - before, working_bytes(192 * 192, 60))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_memory_stays_below_its_bound():
    process = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True)
    taken, bound = map(int, process.stdout.split())
    assert bound / 4 < taken < bound


def test_images_that_span_fewer_directions_than_components_still_give_a_basis():
    pair = [np.full((8, 8), 10, np.uint8), np.full((8, 8), 90, np.uint8)]
    fitted = principal_components(pair * 10, 4)
    np.testing.assert_allclose(fitted.basis @ fitted.basis.T, np.eye(4), atol=1e-5)
    assert fitted.explained_variance[0] == pytest.approx(fitted.total_variance, rel=1e-4)
    np.testing.assert_allclose(fitted.explained_variance[1:], 0, atol=1e-3 * fitted.total_variance)
    np.testing.assert_allclose(fitted.reconstruct(np.stack(pair)), np.stack(pair)[:, None], atol=0.1)


def test_the_first_components_are_a_fit_of_their_own():
    fitted = principal_components(Read(60), 5)
    images = np.stack(list(Read(60)))[:7]
    residuals = [
        np.square(images[:, None] - fitted.first(count).reconstruct(images)).mean() for count in (1, 2, 3, 4, 5)
    ]
    assert residuals == sorted(residuals, reverse=True)
    with pytest.raises(InputError, match="6 components; expected 1 to 5"):
        fitted.first(6)


@pytest.mark.parametrize("count", [5, 6, 7])
def test_no_more_images_than_components_are_refused(count):
    with pytest.raises(InputError, match=f"7 components from {count} images; expected at least 1 and fewer"):
        principal_components(Read(count), 7)


def test_no_components_are_refused():
    with pytest.raises(InputError, match="0 components"):
        principal_components(Read(5), 0)


def test_as_many_components_as_pixels_are_refused():
    with pytest.raises(InputError, match="16 components of images of 16 numbers"):
        principal_components(Read(30, side=4), 16)


def test_an_image_of_another_size_is_refused():
    with pytest.raises(InputError, match=r"an image is \(40, 48\); expected 48 x 48 x 1"):
        principal_components([*Read(5), np.zeros((40, 48), np.uint8)], 2)


def test_the_transposed_size_is_another_size():
    with pytest.raises(InputError, match=r"an image is \(4, 6\); expected 6 x 4"):
        principal_components([np.zeros((6, 4), np.uint8), np.ones((6, 4), np.uint8), np.ones((4, 6), np.uint8)], 1)


@pytest.mark.parametrize("image", [np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4), np.float32), np.zeros(4, np.uint8)])
def test_what_is_no_image_is_refused(image):
    with pytest.raises(InputError, match=r"expected uint8 \(height, width\)"):
        principal_components([image] * 3, 1)


def test_images_that_are_all_the_same_are_refused():
    with pytest.raises(InputError, match="all 4 images are the same"):
        principal_components([np.full((4, 4), 7, np.uint8)] * 4, 2)


def test_images_that_can_be_read_only_once_are_refused():
    class Once(list):
        def __iter__(self):
            taken = self.copy()
            self.clear()
            return iter(taken)

        def __len__(self):
            return 9

    with pytest.raises(InputError, match="0 of 9 images could be read again"):
        principal_components(Once(Read(9)), 2)


def test_a_fit_that_would_not_fit_into_memory_is_refused(monkeypatch):
    monkeypatch.setattr("flawline.runtime.memory.available_bytes", lambda: 1 << 20)
    with pytest.raises(ResourceError, match="a fit of 3 components needs about"):
        principal_components(Read(9), 3)


def test_images_of_another_size_are_not_reconstructed():
    fitted = PrincipalComponents(np.zeros(4, np.float32), np.eye(1, 4, dtype=np.float32), np.ones(1), 4.0, (1, 2, 2))
    with pytest.raises(InputError, match="like the good ones"):
        fitted.reconstruct(np.zeros((1, 3, 2), np.uint8))
