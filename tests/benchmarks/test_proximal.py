import cv2
import numpy as np
import pytest

from flawline.__main__ import main
from flawline.benchmarks import proximal
from flawline.benchmarks.proximal import measure, opencv
from flawline.runtime.errors import FlawlineError
from flawline.runtime.kernels import proximally_sensitive_error


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_every_case_is_timed_on_copies_beyond_the_cache(dtype, threads):
    before = cv2.getNumThreads()
    one = measure(40, 1.5, dtype, threads=threads, cache_bytes=1 << 16, rounds=4)
    assert cv2.getNumThreads() == before
    assert set(one.timings) == {"kernel", "score", "opencv", "read", "write"}
    assert one.read_bytes == 1600 * (np.dtype(dtype).itemsize + 4)
    assert one.written_bytes == 6400
    assert one.exceeds_cache
    assert one.copies * (one.read_bytes + one.written_bytes) > 1.25 * (1 << 16)
    kernel, rival = one.timings["kernel"].p50_ns, one.timings["opencv"].p50_ns
    assert one.times_faster_than_opencv == pytest.approx(rival / kernel)
    limit = one.timings["read"].p50_ns + one.timings["write"].p50_ns
    assert one.share_of_limit == pytest.approx(limit / kernel)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_opencv_computes_the_same_error(dtype):
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (31, 40)).astype(dtype)
    reconstruction = (image + generator.normal(0, 20, image.shape)).astype(np.float32)
    expected = proximally_sensitive_error(image[None, None], reconstruction[None, None], 2, implementation="reference")
    out, *scratch = (np.full(image.shape, np.nan, np.float32) for _ in range(3))
    maximum = opencv(image, reconstruction, 2, tuple(scratch), out)
    np.testing.assert_allclose(out, expected.map[0], rtol=1e-5, atol=1e-5 * expected.mean[0])
    assert maximum == out.max()


def test_what_disagrees_is_not_timed(monkeypatch):
    def without_filter(image, reconstruction, sigma_px, scratch, out):
        out[...] = (image - reconstruction) ** 2
        return float(out.max())

    monkeypatch.setattr(proximal, "opencv", without_filter)
    with pytest.raises(FlawlineError, match="OpenCV disagrees with the reference; nothing was timed"):
        measure(40, 1.5, "float32", threads=1, cache_bytes=1 << 16, rounds=1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sigma", "-1"], "expected pixels, 0 to 1000"),
        (["--sigma", "wide"], "expected pixels, 0 to 1000"),
        (["--sigma", "nan"], "expected pixels, 0 to 1000"),
        (["--size", "0"], "expected a whole number, 1 or more"),
        (["--dtypes", "float64"], "float64"),
        (["--threads", "100000"], "threads: received 100000"),
    ],
)
def test_options_out_of_range_end_with_2(words, message, capsys):
    try:
        code = main(["bench", "pse", "--size", "8", *words])
    except SystemExit as left:
        code = left.code
    assert code == 2
    assert message in capsys.readouterr().err
