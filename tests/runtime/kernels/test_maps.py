import cv2
import numpy as np
import pytest

from flawline.runtime.kernels import embeddings, implementations, smooth

SHAPES = [[(7, 5)], [(7, 5), (3, 2)], [(14, 11), (7, 5), (1, 1)], [(3, 2), (5, 9)]]


def bilinear_matrix(source, target):
    """Hat functions on half-pixel centres: row i holds the weights of all source pixels for target pixel i."""
    centre = np.clip((np.arange(target)[:, None] + 0.5) * source / target - 0.5, 0, source - 1)
    return np.clip(1 - np.abs(centre - np.arange(source)), 0, None)


@pytest.mark.parametrize("size", [(7, 5), (9, 17), (1, 1)])
@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("d", [1, 8, 13, 100])
@pytest.mark.parametrize("implementation", implementations())
def test_bilinear_is_a_product_with_hat_functions(implementation, d, shapes, size, rng):
    maps = [rng.standard_normal((2, d, *shape)).astype(np.float32) for shape in shapes]
    expected = sum(
        bilinear_matrix(m.shape[2], size[0]) @ m.astype(np.float64) @ bilinear_matrix(m.shape[3], size[1]).T
        for m in maps
    )
    out = np.full((2, size[0] * size[1], d), np.nan, np.float32)
    assert embeddings(maps, size, out=out, implementation=implementation) is out
    np.testing.assert_allclose(out, expected.reshape(2, d, -1).swapaxes(1, 2), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("implementation", implementations())
def test_nearest_takes_the_floor(implementation, rng):
    coarse = rng.standard_normal((1, 9, 3, 2)).astype(np.float32)
    rows, columns = np.arange(7) * 3 // 7, np.arange(5) * 2 // 5
    expected = coarse[:, :, rows][..., columns].reshape(1, 9, -1).swapaxes(1, 2)
    np.testing.assert_array_equal(
        embeddings([coarse], (7, 5), upsampling="nearest", implementation=implementation), expected
    )


@pytest.mark.parametrize("upsampling", ["bilinear", "nearest"])
@pytest.mark.parametrize("implementation", implementations())
def test_upsampling_is_that_of_torch(implementation, upsampling, rng):
    torch = pytest.importorskip("torch")
    maps = [rng.standard_normal((2, 20, *shape)).astype(np.float32) for shape in ((14, 10), (7, 5), (4, 3))]
    options = {"align_corners": False} if upsampling == "bilinear" else {}
    expected = sum(
        torch.nn.functional.interpolate(torch.from_numpy(m), (14, 10), mode=upsampling, **options).numpy() for m in maps
    )
    out = embeddings(maps, (14, 10), upsampling=upsampling, implementation=implementation)
    np.testing.assert_allclose(out, expected.reshape(2, 20, -1).swapaxes(1, 2), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.0, 0.2, 1.0, 4.0])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 5), (20, 33)])
@pytest.mark.parametrize("implementation", implementations())
def test_smoothing_is_a_convolution_with_reflected_border(implementation, size, sigma, rng):
    maps = rng.standard_normal((3, *size)).astype(np.float32)
    radius = int(np.ceil(3 * sigma))
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets[:, None] ** 2 + offsets**2) / max(sigma, 1e-9) ** 2)
    kernel /= kernel.sum()
    padded = np.pad(maps.astype(np.float64), ((0, 0), (radius, radius), (radius, radius)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape, (1, 2))
    out = np.full_like(maps, np.nan)
    assert smooth(maps, sigma, out=out, implementation=implementation) is out
    np.testing.assert_allclose(out, (windows * kernel).sum((-1, -2)), rtol=1e-5, atol=1e-6)


def test_smoothing_is_that_of_opencv(rng):
    image = rng.standard_normal((40, 56)).astype(np.float32)
    expected = cv2.GaussianBlur(image, (25, 25), 4.0, borderType=cv2.BORDER_REFLECT_101)
    np.testing.assert_allclose(smooth(image[None], 4.0)[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("implementation", implementations())
def test_smoothing_does_not_depend_on_threads_and_keeps_a_constant(implementation, rng):
    maps = rng.standard_normal((3, 19, 23)).astype(np.float32)
    alone = smooth(maps, 2.5, implementation=implementation)
    assert smooth(maps, 2.5, threads=4, implementation=implementation).tobytes() == alone.tobytes()
    constant = np.full((1, 19, 23), 3.0, np.float32)
    np.testing.assert_allclose(smooth(constant, 2.5, implementation=implementation), constant, rtol=1e-6)
