import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flawline.runtime.cameras import BlockInfo, Loss, Status
from flawline.runtime.stream import POLICIES, Block, Ring

SHAPE = (4, 3)


def filled(ring: Ring, block: Block, first_line: int, lines: int) -> Block:
    block.buffer[:lines] = (np.arange(first_line, first_line + lines) % 256)[:, None]
    return ring.commit(block, BlockInfo(Status.OK, first_line, lines))


class Reader:
    """Consumes a ring and checks that the web has no hole: every line is received or in a loss, in order."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self.next_line = 0
        self.received = 0
        self.lost = 0

    def take(self) -> bool:
        item = self.ring.take()
        if item is None:
            return False
        first_line = item.first_line if isinstance(item, Loss) else item.info.first_line
        assert first_line == self.next_line
        if isinstance(item, Loss):
            self.lost += item.lines
            self.next_line += item.lines
        else:
            lines = item.info.lines
            np.testing.assert_array_equal(item.pixels[:, 0], np.arange(first_line, first_line + lines) % 256)
            self.received += lines
            self.next_line += lines
            self.ring.release(item)
        return True


@settings(deadline=None)
@given(
    policy=st.sampled_from(["drop-oldest", "drop-newest"]),
    blocks=st.integers(1, 4),
    steps=st.lists(st.tuples(st.sampled_from(["commit", "lose", "take"]), st.integers(1, 4)), max_size=60),
    closes=st.booleans(),
)
def test_every_line_is_received_or_lost_whatever_the_order_of_events(policy, blocks, steps, closes):
    ring = Ring(blocks, SHAPE, policy)
    reader = Reader(ring)
    block, sent = ring.spare(), 0
    queued = 0
    for action, lines in steps:
        if action == "commit":
            block = filled(ring, block, sent, lines)
            sent, queued = sent + lines, queued + 1
        elif action == "lose":
            ring.lose(sent, lines, "broken")
            sent, queued = sent + lines, queued + 1
        elif queued and reader.next_line < sent:
            reader.take()
    if closes:
        ring.close()
        filled(ring, block, sent, 2)
        assert reader.received + ring.lost.total() == sent + 2
        return
    ring.end()
    while reader.take():
        pass
    assert reader.next_line == sent
    assert reader.received + reader.lost == sent
    assert ring.lost.total() == reader.lost
    assert ring.peak_blocks <= blocks


@pytest.mark.parametrize("policy", POLICIES)
def test_slow_consumer_in_another_thread(policy):
    ring = Ring(3, SHAPE, policy)

    def produce() -> None:
        block = ring.spare()
        for number in range(200):
            block = filled(ring, block, number * 4, 4)
        ring.end()

    producer = threading.Thread(target=produce)
    producer.start()
    reader = Reader(ring)
    while reader.take():
        time.sleep(0.0005)
    producer.join()
    assert reader.received + ring.lost.total() == 800
    if policy == "block":
        assert reader.received == 800
    else:
        assert set(ring.lost) == {f"ring_{policy.replace('-', '_')}"}


def test_drop_oldest_keeps_the_newest_blocks_and_drop_newest_the_oldest():
    kept = {}
    for policy in ("drop-oldest", "drop-newest"):
        ring = Ring(2, SHAPE, policy)
        block = ring.spare()
        for number in range(5):
            block = filled(ring, block, number * 4, 4)
        ring.end()
        kept[policy] = []
        while (item := ring.take()) is not None:
            if isinstance(item, Block):
                kept[policy].append(item.info.first_line)
    assert kept == {"drop-oldest": [12, 16], "drop-newest": [0, 4]}


def test_losses_in_a_row_are_one_loss_with_every_reason_and_the_first_explanation():
    ring = Ring(2, SHAPE, "block")
    ring.lose(0, 3, "skipped")
    ring.lose(3, 2, "broken", "cable")
    ring.lose(5, 1, "broken", "plug")
    loss = ring.take()
    assert isinstance(loss, Loss)
    assert (loss.first_line, loss.lines, loss.reasons, loss.detail) == (0, 6, {"skipped": 3, "broken": 3}, "cable")


def test_close_releases_a_waiting_producer():
    ring = Ring(1, SHAPE, "block")
    block = filled(ring, ring.spare(), 0, 4)
    producer = threading.Thread(target=filled, args=(ring, block, 4, 4))
    producer.start()
    ring.close()
    producer.join(timeout=10)
    assert not producer.is_alive()
    assert ring.lost == {"stopped": 8}
