import pytest
from hypothesis import given
from hypothesis import strategies as st

from flawline.runtime.cameras.numbering import MAX_JUMP, CameraClock, Delay, FrameIds


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
        # Another count: what was thrown away before that was clear is missing.
        ([29999, 30000, 1, 2, 3, 4, 5], [1, 1, 0, 0, 0, 4, 1]),
        ([9, 9, 9, 9, 9, 9, 9], [1, 0, 0, 0, 4, 1, 1]),
        ([9, 9, 9, 9, 9, 70, 71], [1, 0, 0, 0, 4, 1, 1]),
        ([50, 40, 39, 51, 41, 52], [1, 0, 0, 1, 0, 1]),
    ],
)
def test_ids_wrap_repeat_and_jump(ids, expected):
    assert steps(ids) == expected


def test_count_that_starts_anew_is_told_by_the_time_of_the_camera():
    counter = FrameIds()
    frames = [(29999, 10), (30000, 20), (1, 30), (2, 40), (1, 30), (2, 40), (3, 50)]
    assert [counter.advance(*frame) for frame in frames] == [1, 1, 1, 1, 0, 0, 1]
    assert (counter.jumps, counter.repeated, counter.uncounted) == (1, 2, 0)


def test_frames_that_are_not_counted_are_taken_as_they_come_and_told():
    counter = FrameIds()
    assert [counter.advance(0, time_ns) for time_ns in (10, 20, 20, 30, 40)] == [1, 1, 1, 1, 1]
    assert (counter.repeated, counter.uncounted) == (0, 4)
    without_time = FrameIds()
    assert sum(without_time.advance(7) for _ in range(100)) == 100
    assert (without_time.repeated, without_time.uncounted) == (0, 99)


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


def test_waiting_is_told_from_the_way_that_everything_takes():
    delay, ms = Delay(), 10**6
    # 7 ms on the way; two of the stamps then wait, 30 and 20 ms.
    delays = [delay.of(at * ms, (at + 7 + waits + 10**9) * ms) for at, waits in ((10, 0), (20, 30), (30, 20), (40, 0))]
    assert [round(ns / ms) for ns in delays] == [0, 30, 20, 0]


@pytest.mark.parametrize("drift_ppm", [-150, 150])
def test_clocks_that_drift_apart_tell_no_delay(drift_ppm):
    delay, second = Delay(), 10**9
    stamps = range(second, 3600 * second, second)
    delays = [delay.of(stamp, stamp + stamp * drift_ppm // 10**6) for stamp in stamps]
    assert max(delays) <= 200_000


def test_clock_that_stands_or_starts_again_tells_no_delay():
    delay, ms = Delay(), 10**6
    times = (500, 10), (500, 40), (7, 70), (17, 80), (18, 86)
    assert [round(delay.of(stamp * ms, host * ms) / ms) for stamp, host in times] == [0, 0, 0, 0, 5]


def test_frames_that_are_stamped_at_once_or_in_the_wrong_order_have_waited_as_long_as_the_others():
    delay, us = Delay(), 10**3
    # Fetched a second late, at once, and then in time.
    times = (1000, 1000), (2000, 10**6), (2000, 10**6 + 10), (1900, 10**6 + 20), (3000, 10**6 + 30), (1002000, 1002000)
    waited = [delay.of(stamp * us, host * us) // us for stamp, host in times]
    assert waited == pytest.approx([0, 998000, 998010, 998120, 997030, 0], abs=250)
