"""What cameras count with, made to rise: ids of frames that wrap, repeat or jump, and clocks that start again."""

_LARGEST_16_BITS = 65535
_LIKELY_WRAP = 32768
_SURE = 4  # frames that come late or again do not count up
_DRIFT = 200, 1_000_000  # two quartz clocks part by no more than that
_UNSURE_NS = 10_000_000  # stamps of frames that come at once may be equal, or cross by as long as a thread was held up
MAX_JUMP = 1 << 20
"""Frames: more than these between two frames are no loss but another count."""


class FrameIds:
    """Counts frames by the ids that a camera gives them.

    GigE Vision counts in 16 bits and leaves 0 out (65535, 1); a camera that has sent a 0 is taken to use it. Ids above
    65535 never wrap. An id that falls or stays is that of a frame that comes late or again, unless the camera's time
    has moved on, or several such frames in a row count up or stay as well: then the camera counts anew, or not at all.

    Attributes:
        repeated: Frames whose id, or a later one, was there before.
        jumps: Ids that tell nothing, since the camera counts anew.
        uncounted: Frames whose ids do not count, each taken for the next one.
    """

    def __init__(self) -> None:
        self._last: int | None = None
        self._last_ns = 0
        self._modulus = _LARGEST_16_BITS
        self._counts = True
        self._behind = 0  # frames in a row that looked late or repeated
        self._behind_id = 0
        self.repeated = 0
        self.jumps = 0
        self.uncounted = 0

    def advance(self, frame_id: int, camera_ns: int = 0) -> int:
        """How many frames on this one is.

        Args:
            frame_id: As the camera counts.
            camera_ns: Time by the camera's clock, nanoseconds; 0 if it has none.

        Returns:
            1 for the next frame and for the first one, 1 + n behind n frames that never came or were taken for repeated
            ones, 0 for a frame that comes late or again. An id that tells nothing counts as the next frame.
        """
        if frame_id == 0:
            self._modulus = _LARGEST_16_BITS + 1
        step = 1 if self._last is None else self._step(frame_id, frame_id - self._last, camera_ns)
        if step:
            self._last, self._last_ns, self._behind = frame_id, camera_ns, 0
        return step

    def _step(self, frame_id: int, step: int, camera_ns: int) -> int:
        last = frame_id - step
        if step < 0 and last <= _LARGEST_16_BITS and -step >= _LIKELY_WRAP:
            step += self._modulus
        if not self._counts and step:
            self._counts = True
            self.jumps += 1
            return 1
        if not -MAX_JUMP <= step <= MAX_JUMP:
            self.jumps += 1
            return 1
        if step > 0:
            return step
        if not (0 < self._last_ns < camera_ns) and self._counts:
            follows = frame_id == self._behind_id + (step < 0)
            self._behind = self._behind + 1 if self._behind and follows else 1
            self._behind_id = frame_id
            if self._behind < _SURE:
                self.repeated += 1
                return 0
            # Those before were no repeated ones either, and they are gone.
            self.repeated -= self._behind - 1
        else:
            self._behind = 1
        self._counts = step < 0
        self.jumps += self._counts
        self.uncounted += 0 if self._counts else self._behind
        return self._behind


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
        """What the camera's clock shows at a time of the host, carried on from the last reading; 0 before the first."""
        return 0 if self._camera_ns is None else self._camera_ns + max(0, host_ns - self._arrival_ns)

    def align(self) -> None:
        """Says that the next reading is of another clock, such as that of a camera that was off meanwhile."""
        self._aligns = True


class Delay:
    """How much later than at best something comes that another clock has stamped.

    What passed at best between a stamp and the host is the least that was seen, which may rise as fast as clocks drift
    apart: then the least is forgotten in time. A clock that stands or goes back for longer than a hundredth of a second
    begins anew.
    """

    def __init__(self) -> None:
        self._least_ns: int | None = None
        self._stamp_ns = 0
        self._host_ns = 0

    def of(self, stamp_ns: int, host_ns: int) -> int:
        """Nanoseconds, not negative.

        Args:
            stamp_ns: By the other clock, nanoseconds.
            host_ns: By `time.monotonic_ns()`, when it was here.
        """
        passed_ns = host_ns - stamp_ns
        on_ns, host_on_ns = stamp_ns - self._stamp_ns, host_ns - self._host_ns
        if self._least_ns is None or (on_ns <= 0 and max(-on_ns, host_on_ns) > _UNSURE_NS):
            self._least_ns = passed_ns
        elif on_ns <= 0:
            return passed_ns - self._least_ns
        else:
            parts, whole = _DRIFT
            self._least_ns = min(passed_ns, self._least_ns + host_on_ns * parts // whole)
        self._stamp_ns, self._host_ns = stamp_ns, host_ns
        return passed_ns - self._least_ns
