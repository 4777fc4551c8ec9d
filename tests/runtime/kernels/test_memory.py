"""Native code stays inside its buffers, and outlives a fork."""

import subprocess
import sys

import numpy as np

from flawline.runtime.kernels import read_bandwidth

GUARDED = """
import ctypes, itertools, mmap
import numpy as np
from flawline.runtime.kernels import Gaussians, MahalanobisMap, embeddings, implementations, mahalanobis, pack, pack_int8
from flawline.runtime.kernels import ProximalErrorMap, read_bandwidth, smooth

libc = ctypes.CDLL(None, use_errno=True)
rng = np.random.default_rng(5)
keep = []


def guarded(array):
    "A copy that ends where memory ends: the page after it cannot be read."
    page = mmap.PAGESIZE
    size = -(-array.nbytes // page) * page
    memory = mmap.mmap(-1, size + page)
    keep.append(memory)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert libc.mprotect(ctypes.c_void_p(start + size), ctypes.c_size_t(page), 0) == 0
    copy = np.frombuffer(memory, array.dtype, array.size, size - array.nbytes).reshape(array.shape)
    copy[...] = array
    return copy


def floats(*shape):
    return guarded(rng.standard_normal(shape).astype(np.float32))


for implementation in implementations():
    for d in (1, 7, 8, 9, 15, 16, 17, 65, 100):
        for dtype, rank in itertools.product((np.float16, np.float32, np.int8), (None, d // 2)):
            lower = np.tril(rng.standard_normal((15, 2, rank or d, d)), d - (rank or d))
            factors, row_scales = pack_int8(lower) if dtype == np.int8 else (pack(lower, dtype), None)
            gaussians = Gaussians(
                floats(15, 2, d), guarded(factors), guarded(np.ones((15, 2), np.float32)),
                guarded(np.arange(15, dtype=np.int32)), None if row_scales is None else guarded(row_scales), rank or None,
            )
            shapes = [(3, 5), (2, 1), (9, 17)]
            run = MahalanobisMap(gaussians, shapes, (3, 5), batch=3, sigma=1.0, threads=2, implementation=implementation)
            maps = [floats(3, d, *shape) for shape in shapes]
            run(maps, floats(3, 3, 5))
            embeddings(maps, (3, 5), out=floats(3, 15, d), implementation=implementation)
            mahalanobis(floats(3, 15, d), gaussians, floats(3, 15), implementation=implementation)
            mahalanobis(floats(3, 1, d), gaussians, floats(3, 15), threads=3, implementation=implementation)
    for width in (1, 7, 8, 9, 31):
        smooth(floats(2, 3, width), 2.0, out=floats(2, 3, width), implementation=implementation)
    for width, channels, sigma in itertools.product((1, 7, 8, 9, 31, 32, 33, 1100), (1, 2), (0, 2.0, 5.0)):
        for dtype in (np.uint8, np.float32):
            shape = 2, channels, 5, width
            error_map = ProximalErrorMap(
                shape[2:], sigma, channels=channels, dtype=dtype, batch=2, threads=2, implementation=implementation
            )
            error_map(guarded(np.ones(shape, dtype)), floats(*shape), floats(2, 5, width))
for size in (1, 63, 64, 65, 255, 256, 257, 4097):
    read_bandwidth(guarded(np.ones(size, np.uint8)), 2)
print("inside")
"""

FORKED = """
import os
import numpy as np
from flawline.runtime.kernels import Gaussians, MahalanobisMap, mahalanobis, pack

gaussians = Gaussians(
    np.zeros((15, 1, 4), np.float32), pack(np.broadcast_to(np.eye(4), (15, 1, 4, 4))), np.ones((15, 1), np.float32),
    np.arange(15, dtype=np.int32),
)
x = np.random.default_rng(5).standard_normal((1, 15, 4)).astype(np.float32)
maps = [np.ascontiguousarray(x.swapaxes(1, 2).reshape(1, 4, 3, 5))]
engine = MahalanobisMap(gaussians, [(3, 5)], (3, 5), threads=2)
before = engine(maps)[0].tobytes(), mahalanobis(x, gaussians, threads=2).tobytes()
child = os.fork()
if child == 0:
    after = engine(maps)[0].tobytes(), mahalanobis(x, gaussians, threads=2).tobytes()
    del engine
    os._exit(0 if after == before else 1)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0
print("same")
"""


def run(program: str) -> str:
    # In a process of its own, since what is tested here would kill or hang this one.
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


def test_nothing_is_read_or_written_past_the_end_of_a_buffer():
    assert run(GUARDED) == "inside"


def test_forked_process_computes_without_the_threads_it_does_not_have():
    assert run(FORKED) == "same"


def test_read_bandwidth_is_a_plausible_number():
    speed = read_bandwidth(np.random.default_rng(5).integers(0, 255, 1 << 22, np.uint8), threads=2)
    assert 1e8 < speed < 1e13
