"""A bounded queue of preallocated blocks between the camera's thread and the detector's, which never loses count."""

import threading
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from flawline.runtime.cameras import BlockInfo, Loss, Status

Policy = Literal["block", "drop-oldest", "drop-newest"]
POLICIES: tuple[Policy, ...] = get_args(Policy)


@dataclass(eq=False, slots=True)
class Block:
    """A piece of the web in a buffer that is used again and again.

    Attributes:
        buffer: uint8 (block_lines, width[, channels]).
        info: What the buffer holds at present.
    """

    buffer: npt.NDArray[np.uint8]
    info: BlockInfo = field(default=BlockInfo(Status.END))

    @property
    def pixels(self) -> npt.NDArray[np.uint8]:
        """The lines that were read: uint8 (lines, width[, channels]), a view."""
        return self.buffer[: self.info.lines]


class Ring:
    """Passes blocks and losses from one producing to one consuming thread, in the order of the web.

    The queue holds at most `blocks` blocks, and never two losses in a row, so its memory is bounded whatever happens.
    Two more buffers are in the hands of the producer and the consumer: neither ever waits for a free one.
    For every line that enters: it is delivered, lost under a named reason, or still waiting.

    Args:
        blocks: Blocks that may wait, at least 1.
        block_shape: Shape of a block: (lines, width[, channels]).
        policy: What happens when a block comes and the queue is full: `block` makes the producer wait,
            `drop-oldest` gives up the block that waits longest, `drop-newest` the one that comes.

    Attributes:
        capacity: See the arguments.
        policy: See the arguments.
        lost: Lost lines by reason.
        peak_blocks: Most blocks that ever waited at once.
    """

    def __init__(self, blocks: int, block_shape: tuple[int, ...], policy: Policy) -> None:
        self.capacity = blocks
        self.policy = policy
        self._free = [Block(np.full(block_shape, 0, np.uint8)) for _ in range(blocks + 2)]
        self._queue: deque[Block | Loss] = deque()
        self._waiting = 0
        self._ended = False
        self._closed = False
        self._changed = threading.Condition()
        self.lost: Counter[str] = Counter()
        self.peak_blocks = 0

    def spare(self) -> Block:
        """The producer's first buffer; the following ones come from `commit`."""
        with self._changed:
            return self._free.pop()

    def commit(self, block: Block, info: BlockInfo) -> Block:
        """Queues a filled block, as the policy says.

        Args:
            block: The producer's buffer, which it must not touch any more.
            info: What it holds.

        Returns:
            The producer's next buffer.
        """
        block.info = info
        with self._changed:
            if self.policy == "block":
                self._changed.wait_for(lambda: self._waiting < self.capacity or self._closed)
            if self._closed:
                self._append_loss(info.first_line, info.lines, "stopped")
                return block
            if self._waiting == self.capacity:
                if self.policy == "drop-newest":
                    self._append_loss(info.first_line, info.lines, "ring_drop_newest")
                    return block
                self._drop_oldest()
            self._queue.append(block)
            self._waiting += 1
            self.peak_blocks = max(self.peak_blocks, self._waiting)
            self._changed.notify_all()
            return self._free.pop()

    def lose(self, first_line: int, lines: int, reason: str, detail: str = "") -> None:
        """Queues the fact that lines were lost before they came here."""
        with self._changed:
            self._append_loss(first_line, lines, reason, detail)
            self._changed.notify_all()

    def end(self) -> None:
        """Says that the producer has finished."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def take(self) -> Block | Loss | None:
        """Waits for the next item.

        Returns:
            A block, which must be given back with `release`; a loss; or None when all is taken and the producer has
            finished.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._ended)
            if not self._queue:
                return None
            item = self._queue.popleft()
            if isinstance(item, Block):
                self._waiting -= 1
                self._changed.notify_all()
            return item

    def release(self, block: Block) -> None:
        """Gives a block's buffer back."""
        with self._changed:
            self._free.append(block)

    def close(self) -> None:
        """Says that the consumer has finished: what waits, and what still comes, is lost under the reason `stopped`."""
        with self._changed:
            self._closed = True
            while self._waiting:
                self._drop_oldest("stopped")
            self._changed.notify_all()

    def _append_loss(self, first_line: int, lines: int, reason: str, detail: str = "") -> None:
        self.lost[reason] += lines
        loss = Loss(first_line, Counter({reason: lines}), detail)
        if self._queue and isinstance(last := self._queue[-1], Loss):
            last.merge(loss)
        else:
            self._queue.append(loss)

    def _drop_oldest(self, reason: str = "ring_drop_oldest") -> None:
        """Turns the oldest waiting block into a loss, merged with the losses on both sides of it."""
        merged: Loss | None = None
        dropped = False
        while self._queue and not (dropped and isinstance(self._queue[0], Block)):
            item = self._queue.popleft()
            if isinstance(item, Block):
                dropped = True
                self._waiting -= 1
                self._free.append(item)
                self.lost[reason] += item.info.lines
                item = Loss(item.info.first_line, Counter({reason: item.info.lines}))
            if merged is None:
                merged = item
            else:
                merged.merge(item)
        if merged is not None:
            self._queue.appendleft(merged)
