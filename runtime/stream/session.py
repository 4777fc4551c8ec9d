"""What every stream does around its detector: a camera's thread, a ring, an end in good order."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from flawline.runtime.cameras.source import Source
from flawline.runtime.errors import DeviceError, FlawlineError
from flawline.runtime.events import Ending, Summary
from flawline.runtime.stream.acquisition import Acquisition
from flawline.runtime.stream.ring import Ring

DEFAULT_RING_BLOCKS = 64


def stream(
    source: Source,
    ring: Ring,
    stop: threading.Event,
    inspect: Callable[[], Ending],
    close: Callable[[], object],
    summarise: Callable[[Ending, Acquisition], Summary],
) -> Summary:
    """Reads the source in a thread of its own while the caller's inspects what comes out of the ring.

    Args:
        source: An open source.
        ring: Empty.
        stop: Ends the stream when set; is set when the stream is over.
        inspect: Takes from the ring until it is empty, or enough is seen; gives the reason why it ended. What it raises but for
            a DeviceError is the source's fault: what came cannot be streamed.
        close: Called when nothing more is inspected.
        summarise: Gives the account, at the very end, and tells it to whom it concerns.

    Returns:
        The account.

    Raises:
        FlawlineError: The source failed for good, or gives what cannot be streamed; the account has been told.
        DeviceError: The GPU failed; likewise.
    """
    acquisition = Acquisition(source, ring, stop)
    error: FlawlineError | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="acquisition") as executor:
        acquiring = executor.submit(acquisition.run)
        try:
            ended = inspect()
        except FlawlineError as raised:
            ended, error = "detector_failed" if isinstance(raised, DeviceError) else "source_failed", raised
        finally:
            stop.set()
            ring.close()
            close()
    failure = acquiring.exception()
    if failure is not None:
        if not isinstance(failure, FlawlineError):
            raise failure
        ended = "source_failed"
    summary = summarise(ended, acquisition)
    if failure is not None:
        raise failure
    if error is not None:
        raise error
    return summary
