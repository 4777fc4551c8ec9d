import numpy as np
import pytest

from flawline.benchmarks import rivals
from flawline.benchmarks.kernels import measure
from flawline.benchmarks.timing import alternate
from flawline.runtime.kernels import packed_size


@pytest.mark.parametrize("factors", ["float16", "float32"])
def test_every_case_is_timed_in_cache_and_in_memory(factors):
    cached, rotating = measure(9, factors, threads=[1], cache_bytes=1 << 16, positions=40, rounds=4)
    bytes_of_one = np.dtype(factors).itemsize
    assert (cached.residence, cached.copies, cached.exceeds_cache) == ("cache", 1, False)
    assert (rotating.residence, rotating.exceeds_cache) == ("memory", True)
    assert rotating.copies * rotating.factor_bytes > 1.25 * (1 << 16)
    for one in (cached, rotating):
        assert set(one.timings) == {"kernel", "read", "kernel, 8 frames", "onnxruntime", "numpy"}
        assert one.factor_bytes == 40 * packed_size(9) * bytes_of_one
        assert one.necessary_bytes == 40 * 45 * bytes_of_one
        assert one.share_of_read > 0
        assert one.times_faster_than("onnxruntime") > 0


def test_rivals_compute_the_same_distances():
    generator = np.random.default_rng(0)
    z, inverse = generator.random((5, 7), np.float32), generator.random((5, 7, 7), np.float32)
    expected = np.einsum("pi,pij,pj->p", z, inverse, z)
    np.testing.assert_allclose(rivals.onnx_runtime(1)(z, inverse), expected, rtol=1e-5)
    np.testing.assert_allclose(rivals.numpy_matmul(z, inverse), expected, rtol=1e-5)


def test_primed_calls_are_not_timed():
    calls: list[str] = []
    results = alternate({"a": lambda: calls.append("a")}, rounds=2, warmup=0, prime=3)
    assert len(calls) == 8
    assert results["a"].runs == 2
