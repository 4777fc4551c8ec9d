"""A real GigE Vision stream over a loopback of its own, from a camera that tells in its pixels which line it sends."""

import itertools
import time
from collections.abc import Iterator

import pytest

from flawline.runtime.cameras import aravis_library
from flawline.runtime.errors import MissingExtraError
from tests.runtime.cameras.wire import Process, Read, Wire, answered, counters, reads, wire

RATE = 12800
SPEC = f"aravis:127.0.0.1?width=4096&block=64&line_rate={RATE}&packet=9000"
SMALL = "aravis:127.0.0.1?width=256&block=8&line_rate=6400&packet=1400"
WIDTH_REGISTER, PIXEL_FORMAT_REGISTER = "100", "128"
MONO8, BAYER = "01080001", "0108000b"


@pytest.fixture
def net() -> Iterator[Wire]:
    with wire() as made:
        yield made


@pytest.fixture(scope="module")
def standing() -> Iterator[Wire]:
    """With a camera that nobody holds; what was set of it stays set."""
    with wire() as made:
        made.camera()
        yield made


def follow(reader: Process, lines: int) -> list[Read]:
    """Reads on, and checks that every line is where its number says, whatever happened before it."""
    got = reads(reader, lines)
    check(got)
    return got


def check(got: list[Read]) -> None:
    for before, after in itertools.pairwise(got):
        assert after.first_line == before.first_line + before.lines
        assert after.camera_time_ns >= before.camera_time_ns
        assert after.arrival_time_ns >= before.arrival_time_ns
    received = [read for read in got if read.status == "ok"]
    assert all(read.is_right for read in received)
    # What was lost before a line has been counted, neither too much nor too little.
    assert len({read.made - read.first_line for read in received}) == 1


def closed(reader: Process) -> None:
    """Ends a reader, which must have lived until then and have said nothing else."""
    assert reader.ask("close") == '["closed"]'
    reader.end()
    assert (reader.returncode, reader.errors) == (0, "")


def test_every_line_arrives_in_its_place(net):
    net.camera()
    reader, form = net.reader(SPEC)
    assert form == [64, 4096, 1]
    got = follow(reader, RATE)
    assert {read.status for read in got} == {"ok"}
    seconds = (got[-1].camera_time_ns - got[0].camera_time_ns) / 1e9
    assert seconds == pytest.approx((got[-1].made_ns - got[0].made_ns) / 1e9, abs=0.05)
    counts = counters(reader)
    assert (counts["lines_sent"], counts["frames_received"] * 64) == (RATE, RATE)
    for name in ("frames_incomplete", "frames_missing", "frames_changed", "frames_repeated", "packets_missing"):
        assert counts[name] == 0, name
    closed(reader)


# With packets asked for again, the library holds back what follows an incomplete block for a while: in more buffers.
@pytest.mark.parametrize(("ratio", "parameters"), [(0.005, "&resend=false"), (0.005, ""), (0.2, "&resend=false")])
def test_lost_packets_cost_their_blocks_and_no_more(net, ratio, parameters):
    camera = net.camera(256)
    camera.ask(f"loss {ratio}")
    reader, _ = net.reader(f"{SMALL}&buffers=512{parameters}")
    got = reads(reader, 16000)
    camera.ask("loss 0")
    got += reads(reader, 4000)
    check(got)
    lost = [read for read in got if read.status != "ok"]
    assert lost
    assert {read.status for read in lost} <= {"incomplete", "lost"}
    assert {read.reason for read in lost} <= {"incomplete_frame", "missing_frames"}
    # A block has 2 packets of pixels between a leader and a trailer.
    expected = 2000 * (1 - (1 - ratio) ** 4)
    assert sum(read.lines for read in lost) / 8 == pytest.approx(expected, abs=5 * expected**0.5)
    counts = counters(reader)
    assert counts["packets_missing"] > 0
    assert counts["lines_sent"] == 8 * (
        counts["frames_received"] + counts["frames_incomplete"] + counts["frames_missing"]
    )
    closed(reader)


def test_packets_come_through_plain_sockets_too(net):
    net.camera(256)
    reader, _ = net.reader(f"{SMALL}&packet_socket=false")
    follow(reader, 6400)
    assert counters(reader)["frames_received"] > 0.9 * 800
    closed(reader)


def test_nothing_is_lost_while_a_detector_is_loaded(net):
    net.camera()
    reader, _ = net.reader(SPEC + "&buffers=4")
    reader.ask("wait 0.5")
    assert {read.status for read in follow(reader, 640)} == {"ok"}
    assert counters(reader)["buffer_underruns"] == 0
    closed(reader)


@pytest.mark.parametrize("parameters", ["", "&packet_socket=false"])
def test_block_that_waited_in_the_library_is_here_since_it_came(net, parameters):
    net.camera(256)
    reader, _ = net.reader(f"{SMALL}&buffers=1024{parameters}")
    follow(reader, 3200)
    reader.ask("wait 1")
    got = follow(reader, 4800)
    # Fetched from a second late on to a quarter of one; the rest is for moments at which the machine is busy.
    late_ms = [(read.arrival_time_ns - read.made_ns) / 1e6 for read in got]
    assert sorted(late_ms)[len(late_ms) // 2] < 300
    closed(reader)


def test_starved_buffers_are_a_gap_of_their_size(net):
    net.camera()
    reader, _ = net.reader(SPEC + "&buffers=4")
    before = follow(reader, 640)
    reader.ask("wait 0.5")
    check(before + reads(reader, RATE))
    counts = counters(reader)
    assert counts["buffer_underruns"] > 0
    # At least that; more where the machine was busy, and all of it in the account.
    assert counts["frames_missing"] * 64 > 0.3 * RATE
    closed(reader)


def test_camera_that_is_killed_and_started_again_leaves_an_estimated_gap(net):
    camera = net.camera()
    reader, _ = net.reader(SPEC + "&silence=0.5&reconnect=0.5")
    before = follow(reader, 6400)
    camera.kill()
    reader.tell("read 64000")
    time.sleep(1.5)
    net.camera(first_line=10**6)
    after = answered(reader)
    lost = [read for read in after if read.status == "lost"]
    assert {read.reason for read in lost} == {"camera_lost"}
    assert "estimated" in lost[0].detail
    returned = [read for read in after if read.made is not None and read.made >= 10**6]
    check(before + [read for read in after if read not in returned])
    check(returned)
    assert returned[0].first_line == lost[-1].first_line + lost[-1].lines
    # By the clock of the camera's process the gap lasted so long.
    last = [read for read in before + after if read.made is not None and read.made < 10**6][-1]
    away_s = (returned[0].made_ns - last.made_ns) / 1e9
    assert returned[0].first_line - last.first_line == pytest.approx(away_s * RATE, rel=0.05)
    counts = counters(reader)
    assert counts["reconnects"] == 1
    assert counts["lines_sent"] == after[-1].first_line + after[-1].lines
    closed(reader)


@pytest.mark.slow
def test_camera_that_stops_answering_is_lost_without_being_told_when_silence_is(net):
    camera = net.camera()
    reader, _ = net.reader(SPEC + "&reconnect=0.5")
    follow(reader, 640)
    camera.kill()
    net.camera(first_line=10**6)
    after = reads(reader, 20 * RATE)
    assert "does not answer" in next(read for read in after if read.status == "lost").detail
    assert after[-1].made >= 10**6
    assert counters(reader)["reconnects"] == 1
    closed(reader)


@pytest.mark.parametrize(
    ("register", "changed", "back", "detail"),
    [
        (WIDTH_REGISTER, f"{2048:x}", f"{4096:x}", "2048"),
        (PIXEL_FORMAT_REGISTER, BAYER, MONO8, "0x0108000b"),
    ],
)
def test_blocks_of_another_width_or_format_are_lost_by_name(net, register, changed, back, detail):
    camera = net.camera()
    reader, _ = net.reader(SPEC)
    got = follow(reader, 640)
    camera.ask(f"register {register} {changed}")
    got += reads(reader, 6400)
    camera.ask(f"register {register} {back}")
    got += reads(reader, 6400)
    check(got)
    lost = [read for read in got if read.status != "ok"]
    assert {(read.status, read.reason) for read in lost} == {("lost", "frame_changed")}
    assert all(detail in read.detail for read in lost)
    counts = counters(reader)
    assert counts["frames_changed"] * 64 == sum(read.lines for read in lost) > 0
    assert got[-1].status == "ok"
    closed(reader)


def test_skipped_ids_are_lines_that_never_came(net):
    camera = net.camera()
    reader, _ = net.reader(SPEC)
    got = follow(reader, 640)
    camera.ask("skip 7")
    got += reads(reader, 6400)
    check(got)
    assert [(read.lines, read.reason) for read in got if read.status == "lost"] == [(7 * 64, "missing_frames")]
    assert counters(reader)["frames_missing"] == 7
    closed(reader)


def test_block_that_is_sent_again_is_no_new_line(net):
    camera = net.camera()
    reader, _ = net.reader(SPEC)
    got = follow(reader, 640)
    camera.ask("repeat 3")
    got += reads(reader, 6400)
    check(got)
    assert {read.status for read in got} == {"ok"}
    assert counters(reader)["packets_ignored"] > 0
    closed(reader)


@pytest.mark.parametrize("first", [65500, 65535, 1])
def test_ids_that_wrap_lose_nothing(net, first):
    camera = net.camera(256)
    camera.ask(f"id {first}")
    reader, _ = net.reader(SMALL)
    got = follow(reader, 2000)
    assert {read.status for read in got} == {"ok"}
    assert counters(reader)["frames_missing"] == 0
    closed(reader)


def test_time_that_goes_backwards_is_counted_and_goes_on(net):
    camera = net.camera()
    reader, _ = net.reader(SPEC)
    got = follow(reader, 640)
    camera.ask("back 3600000000000")
    got += reads(reader, 6400)
    check(got)
    assert counters(reader)["clock_restarts"] == 1
    seconds = (got[-1].camera_time_ns - got[0].camera_time_ns) / 1e9
    assert seconds == pytest.approx((got[-1].made_ns - got[0].made_ns) / 1e9, abs=0.05)
    closed(reader)


def test_camera_is_found_by_its_serial_number(net):
    net.camera()
    assert net.reader("aravis:WEB1?width=512&block=16")[1] == [16, 512, 1]
    _, answer = net.reader("aravis:WEB2")
    assert answer[0] == "error"
    assert answer[1].startswith("camera aravis:WEB2 does not answer; there is aravis:WEB1")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ("width=9000", "refuses Width=9000"),
        ("pixel_format=Mono16", "sends Mono16; expected one of Mono8"),
        ("pixel_format=Mono9", "refuses PixelFormat=Mono9; expected one of Bayer"),
        ("feature.ExposureTimeAb=3", "no feature ExposureTimeAb; did you mean ExposureTimeAbs"),
        ("feature.ExposureTimeAbs=long", "refuses ExposureTimeAbs=long; expected a number"),
        ("feature.TestRegister=1.5", "refuses TestRegister=1.5; expected a whole number"),
        ("packet=70000", "packet=70000; expected bytes of"),
    ],
)
def test_what_the_camera_refuses_is_said_in_one_line(standing, parameters, message):
    reader, answer = standing.reader(f"aravis:127.0.0.1?{parameters}")
    assert answer[0] == "error"
    assert message in answer[1]
    assert "\n" not in answer[1]
    reader.end()
    assert (reader.returncode, reader.errors) == (2, "")


def test_features_are_set_by_name(net):
    net.camera()
    reader, _ = net.reader(SMALL + "&feature.TestRegister=0x12&feature.TriggerMode=Off&feature.ExposureTimeAbs=100")
    follow(reader, 80)
    closed(reader)


def test_camera_that_is_not_there_is_said_in_one_line(net):
    _, answer = net.reader("aravis:127.0.0.1")
    assert answer[0] == "error"
    assert answer[1].startswith("camera aravis:127.0.0.1 does not answer: ")
    _, answer = net.reader("aravis:any")
    assert "there is no camera of this kind at all" in answer[1]


def test_camera_of_another_program_is_not_taken_from_it(net):
    net.camera()
    reader, _ = net.reader(SPEC)
    _, answer = net.reader(SPEC)
    assert answer[0] == "error"
    assert "another program" in answer[1]
    follow(reader, 6400)
    closed(reader)


def test_missing_library_is_named_with_its_package(monkeypatch):
    monkeypatch.setattr(aravis_library, "LIBRARY", "libaravis-of-nowhere.so.0")
    with pytest.raises(MissingExtraError, match=r"libaravis-of-nowhere.*; install it: .*libaravis-0\.8-0$"):
        aravis_library.Aravis()
