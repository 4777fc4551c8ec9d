import numpy as np
import pytest

from flawline.runtime.stream.wander import EdgeWander


@pytest.mark.parametrize("seed", range(5))
def test_parts_of_any_size_add_up_to_the_whole(seed):
    random = np.random.default_rng(seed)
    edge = (4000 + random.normal(0, 0.1, 100_000)).astype(np.float32)
    wander = EdgeWander()
    for part in np.split(edge, np.sort(random.integers(0, len(edge), 200))):
        wander.add(part)
    found = wander.measured(0.25)
    true = edge.astype(np.float64)
    assert (found.lines, found.min_px, found.max_px) == (len(edge), edge.min(), edge.max())
    assert found.mean_px == pytest.approx(true.mean(), rel=1e-12)
    assert found.std_px == pytest.approx(true.std(), rel=1e-6)
    millimetres = (found.mean_mm, found.min_mm, found.max_mm, found.std_mm)
    assert millimetres == tuple(0.25 * px for px in (found.mean_px, found.min_px, found.max_px, found.std_px))


def test_nothing_is_measured_on_no_lines():
    wander = EdgeWander()
    wander.add(np.empty(0, np.float32))
    assert wander.measured() is None
    wander.add(np.array([3], np.float32))
    found = wander.measured()
    assert (found.lines, found.mean_px, found.std_px, found.mean_mm) == (1, 3.0, 0.0, None)
