import numpy as np
import pytest

from flawline.benchmarks import rivals
from flawline.benchmarks.kernels import BATCH, measure
from flawline.benchmarks.timing import alternate
from flawline.runtime.kernels import packed_size, padded_rows


@pytest.mark.parametrize("rank", [None, 4])
@pytest.mark.parametrize("factors", ["float16", "float32", "int8"])
def test_every_case_is_timed_in_cache_and_in_memory(factors, rank):
    cached, rotating = measure(9, factors, rank=rank, threads=[1], cache_bytes=1 << 16, positions=40, rounds=4)
    bytes_of_one = np.dtype(factors).itemsize
    scales = 2 * padded_rows(9, rank) if factors == "int8" else 0
    assert (cached.residence, cached.copies, cached.exceeds_cache) == ("cache", 1, False)
    assert (rotating.residence, rotating.exceeds_cache) == ("memory", True)
    assert rotating.copies * rotating.factor_bytes > 1.25 * (1 << 16)
    for one in (cached, rotating):
        assert set(one.timings) == {"kernel", "read", BATCH, "onnxruntime", "numpy"}
        assert one.factor_bytes == 40 * (packed_size(9, rank) * bytes_of_one + scales)
        assert one.necessary_bytes == 40 * (45 if rank is None else 6 + 7 + 8 + 9) * bytes_of_one
        assert one.share_of_read > 0
        assert one.times_faster_than("onnxruntime") > 0
        alone, batch = one.timings["kernel"].p50_ns, one.timings[BATCH].p50_ns
        assert one.times_cheaper_in_a_batch == pytest.approx(8 * alone / batch)


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
