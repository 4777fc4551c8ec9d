from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest

from flawline.benchmarks.datasets import read_elpv
from flawline.calibration.principal_components import PrincipalComponents, principal_components
from flawline.export.pca_graph import compose_reconstruction, stored_basis
from flawline.runtime.errors import InputError
from flawline.runtime.images import read_image
from flawline.runtime.kernels import proximally_sensitive_error

cv2 = pytest.importorskip("cv2")

SIDE = 64


@pytest.fixture(scope="module")
def cells():
    """Real solar cells, uint8 (40, 64, 64): 30 good to fit, then 5 good and 5 defective ones."""
    pytest.importorskip("elpv_dataset")
    dataset = read_elpv("mono")
    paths = [*dataset.good[:35], *(item.path for item in dataset.test[:5])]
    return np.stack([cv2.resize(read_image(path), (SIDE, SIDE), interpolation=cv2.INTER_AREA) for path in paths])


def run(model: bytes, frames: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options).run(["reconstruction"], {"frame": frames})[0]


@pytest.mark.parametrize("sigma", [0.0, 1.0, 3.0])
def test_scores_of_float16_bases_are_those_of_float64(cells, sigma):
    fitted = principal_components(cells[:30], 20)
    unseen = cells[30:]
    centred = unseen.reshape(10, -1) - fitted.mean.astype(np.float64)
    basis = fitted.basis.astype(np.float64)
    exact = (centred @ basis.T @ basis + fitted.mean).reshape(10, 1, SIDE, SIDE)
    exported = run(compose_reconstruction(fitted), unseen[..., None])
    image = unseen[:, None]
    got = proximally_sensitive_error(image, exported, sigma)
    # The residual in float64, handed over in the image's place, which is float32 either way.
    want = proximally_sensitive_error((image - exact).astype(np.float32), np.zeros_like(exported), sigma)
    np.testing.assert_allclose(got.maximum, want.maximum, rtol=1e-3)
    np.testing.assert_allclose(got.mean, want.mean, rtol=1e-3)


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("batch", [1, 3])
def test_every_layout_and_batch_gives_the_reconstruction(layout, channels, batch):
    generator = np.random.default_rng(3)
    images = generator.integers(0, 256, (12, 5, 7, channels), np.uint8)
    fitted = principal_components(images, 4)
    frames = images[:batch] if layout == "nhwc" else np.ascontiguousarray(np.moveaxis(images[:batch], 3, 1))
    got = run(compose_reconstruction(fitted, layout=layout), frames)
    assert got.dtype == np.float32
    assert got.shape == (batch, channels, 5, 7)
    np.testing.assert_allclose(got, fitted.reconstruct(images[:batch]), atol=0.2)


def test_the_file_holds_each_row_once_in_float16_where_that_does(cells):
    fitted = principal_components(cells[:30], 20)
    exact, rounded = stored_basis(fitted)
    np.testing.assert_array_equal(
        np.concatenate((exact, rounded.astype(np.float32)))[: len(exact)], fitted.basis[: len(exact)]
    )
    assert 0 < len(exact) < 20
    assert len(exact) + len(rounded) == 20
    data = compose_reconstruction(fitted)
    tensors = {tensor.name: tensor for tensor in onnx.load_from_string(data).graph.initializer}
    assert tensors["basis_exact"].data_type == onnx.TensorProto.FLOAT
    assert tensors["basis_rounded"].data_type == onnx.TensorProto.FLOAT16
    assert len(data) < exact.nbytes + rounded.nbytes + fitted.mean.nbytes + 2000


def test_what_rounding_moves_is_a_small_share_of_the_residual(cells):
    fitted = principal_components(cells[:30], 20)
    rebuilt = run(compose_reconstruction(fitted), cells[:30][..., None])
    exact = fitted.reconstruct(cells[:30])
    moved, residual = rebuilt - exact, cells[:30, None] - exact
    assert np.sqrt((moved**2).mean()) < 2e-4 * np.sqrt((residual**2).mean())


def test_little_variance_is_all_float16():
    generator = np.random.default_rng(4)
    noise = generator.integers(0, 256, (2000, 8, 8), np.uint8)
    fitted = principal_components(noise, 1)
    faint = replace(fitted, explained_variance=fitted.explained_variance * 1e-4)
    exact, rounded = stored_basis(faint)
    assert (len(exact), len(rounded)) == (0, 1)
    got = run(compose_reconstruction(faint), noise[:3, ..., None])
    np.testing.assert_allclose(got, fitted.reconstruct(noise[:3]), atol=0.2)


def test_images_that_are_rebuilt_exactly_are_all_float32():
    constant = np.repeat(np.arange(0, 250, 10, dtype=np.uint8), 64).reshape(-1, 8, 8)
    fitted = replace(principal_components(constant, 1), total_variance=0.0)
    assert [len(rows) for rows in stored_basis(fitted)] == [1, 0]
    np.testing.assert_allclose(run(compose_reconstruction(fitted), constant[..., None])[:, 0], constant, atol=1e-3)


def test_equal_components_give_equal_bytes(cells):
    fitted = principal_components(cells[:30], 5)
    assert compose_reconstruction(fitted) == compose_reconstruction(fitted)


def test_components_that_are_not_finite_are_refused():
    basis = np.full((1, 4), np.nan, np.float32)
    broken = PrincipalComponents(np.zeros(4, np.float32), basis, np.ones(1), 1.0, (1, 2, 2))
    with pytest.raises(InputError, match="NaN or infinity"):
        compose_reconstruction(broken)
