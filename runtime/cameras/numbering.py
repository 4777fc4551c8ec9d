"""What cameras count with, made to rise: ids of frames that wrap, repeat or jump, and clocks that start again."""

_LARGEST_16_BITS = 65535
_LIKELY_WRAP = 32768
MAX_JUMP = 1 << 20
"""Frames: more than these between two frames are no loss but another count."""


class FrameIds:
    """Counts frames by the ids that a camera gives them.

    GigE Vision counts in 16 bits and leaves 0 out (65535, 1); a camera that has sent a 0 is taken to use it. Ids above
    65535 never wrap.

    Attributes:
        repeated: Frames whose id, or a later one, was there before.
        jumps: Ids so far from the one before that they tell nothing.
    """

    def __init__(self) -> None:
        self._last: int | None = None
        self._modulus = _LARGEST_16_BITS
        self.repeated = 0
        self.jumps = 0

    def advance(self, frame_id: int) -> int:
        """How many frames on this one is.

        Args:
            frame_id: As the camera counts.

        Returns:
            1 for the next frame and for the first one, 1 + n behind n frames that never came, 0 for a frame that comes
            late or again. An id that tells nothing counts as the next frame.
        """
        if frame_id == 0:
            self._modulus = _LARGEST_16_BITS + 1
        if self._last is None:
            self._last = frame_id
            return 1
        step = frame_id - self._last
        if step < 0 and self._last <= _LARGEST_16_BITS and -step >= _LIKELY_WRAP:
            step += self._modulus
        if step > MAX_JUMP or step < -MAX_JUMP:
            self.jumps += 1
            step = 1
        if step <= 0:
            self.repeated += 1
            return 0
        self._last = frame_id
        return step


class CameraClock:
    """A camera's clock that goes on where it starts again, by as much as passed on the host.

    Attributes:
        restarts: How often the camera's time went backwards.
    """

    def __init__(self) -> None:
        self._offset_ns = 0
        self._camera_ns: int | None = None
        self._arrival_ns = 0
        self._aligns = False
        self.restarts = 0

    def read(self, camera_ns: int, arrival_ns: int) -> int:
        """Time of a block.

        Args:
            camera_ns: By the camera, nanoseconds.
            arrival_ns: By the host, nanoseconds of `time.monotonic_ns()`; they never go backwards.

        Returns:
            Nanoseconds that never go backwards.
        """
        time_ns = camera_ns + self._offset_ns
        if self._camera_ns is not None:
            goes_back = time_ns < self._camera_ns
            self.restarts += goes_back and not self._aligns
            if goes_back or self._aligns:
                time_ns = self.at(arrival_ns)
                self._offset_ns = time_ns - camera_ns
        self._aligns = False
        self._camera_ns, self._arrival_ns = time_ns, arrival_ns
        return time_ns

    def at(self, host_ns: int) -> int:
        """What the camera's clock shows at a time of the host, carried on from the last reading."""
        return (self._camera_ns or 0) + max(0, host_ns - self._arrival_ns)

    def align(self) -> None:
        """Says that the next reading is of another clock, such as that of a camera that was off meanwhile."""
        self._aligns = True
