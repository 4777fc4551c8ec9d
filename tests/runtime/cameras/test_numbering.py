import pytest
from hypothesis import given
from hypothesis import strategies as st

from flawline.runtime.cameras.numbering import MAX_JUMP, CameraClock, FrameIds


def steps(ids: list[int]) -> list[int]:
    counter = FrameIds()
    return [counter.advance(frame_id) for frame_id in ids]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([0, 1, 2], [1, 1, 1]),
        ([7, 8, 11], [1, 1, 3]),
        ([65534, 65535, 1, 2], [1, 1, 1, 1]),  # GigE Vision leaves 0 out
        ([65534, 65535, 0, 1], [1, 1, 1, 1]),
        ([65535, 65536, 65537], [1, 1, 1]),  # 64 bits
        ([65530, 3], [1, 8]),
        ([5, 5, 6], [1, 0, 1]),
        ([5, 4, 6], [1, 0, 1]),
        ([5, 6 + MAX_JUMP, 7 + MAX_JUMP], [1, 1, 1]),
        ([1 << 63, 0, 1], [1, 1, 1]),
    ],
)
def test_ids_wrap_repeat_and_jump(ids, expected):
    assert steps(ids) == expected


@given(st.integers(1, 65535), st.lists(st.integers(1, 30000), max_size=20))
def test_losses_are_counted_across_the_wrap_of_16_bits(first, sizes):
    ids, frame = [first], first
    for size in sizes:
        frame += size
        ids.append((frame - 1) % 65535 + 1)
    assert steps(ids) == [1, *sizes]


def test_clock_that_starts_again_goes_on_by_the_time_of_the_host():
    clock = CameraClock()
    assert [clock.read(camera, host) for camera, host in [(900, 50), (950, 100), (10, 160), (40, 190)]] == [
        900,
        950,
        1010,
        1040,
    ]
    assert clock.restarts == 1


def test_other_clock_is_aligned_even_if_it_is_ahead():
    clock = CameraClock()
    clock.read(100, 1000)
    clock.align()
    assert clock.at(1300) == 400
    assert clock.read(10**9, 1500) == 600
    assert clock.read(10**9 + 7, 1600) == 607
    assert clock.restarts == 0
