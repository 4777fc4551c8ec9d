"""Plays images back as an endless web, line by line, as a line camera would send them."""

import itertools
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from flawline.runtime.cameras.pacing import Pacing
from flawline.runtime.cameras.source import BlockInfo, Status, line_shape
from flawline.runtime.errors import FlawlineError, InputError
from flawline.runtime.image_headers import HeaderError, inspect
from flawline.runtime.images import Image, list_images, read_image


class ReplayOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a `replay:` spec may say; error messages quote the descriptions."""

    line_rate: Annotated[float, Meta(ge=0, le=1e7, description="lines per second up to 1e7, 0 for as fast as read")] = (
        0.0
    )
    block: Annotated[int, Meta(ge=1, le=65536, description="lines per block, 1 to 65536")] = 64
    loop: Annotated[
        Annotated[int, Meta(ge=1)] | Literal["forever"],
        Meta(description="how often the images are played, 1 or more, or forever"),
    ] = 1


class WebImage(NamedTuple):
    """An image file that is a part of the web, and the lines that it promised when the source was opened."""

    path: Path
    lines: int


class ReplaySource:
    """The images of a folder in the order of their names, or one image, joined along the web.

    A reader that comes late misses nothing: the lines wait for it, as in a camera with endless memory, and the line rate
    that was held shows it. The next image is decoded while one is played; no more than these two are in memory.
    All files are checked when the source is opened. One that cannot be decoded when its turn comes is LOST: the web goes
    on behind a gap of as many lines as the file promised.

    Args:
        folder: Folder of images, or one image; all grey or all RGB, 8 bits, of one width.
        options: How to play them.
        spec: The words it was named by, for reports.
    """

    has_encoder = False

    def __init__(self, folder: Path, options: ReplayOptions, spec: str = "") -> None:
        self.spec = spec or f"replay:{folder}"
        self.width = 0
        self.channels = 0
        self.block_lines = options.block
        self.line_rate = options.line_rate or None
        self._images_played = self._images_unreadable = 0
        self._folder = folder
        self._loops = options.loop
        self._images: list[WebImage] = []
        self._decoded: Generator[tuple[WebImage, Image | str]] | None = None
        self._playing: tuple[WebImage, Image | str] | None = None
        self._row = 0
        self._pacing = Pacing(self.line_rate)

    @property
    def counters(self) -> dict[str, int]:
        """See `Source`."""
        return {
            "lines_sent": self._pacing.lines_sent,
            "images_played": self._images_played,
            "images_unreadable": self._images_unreadable,
        }

    def open(self) -> None:
        """See `Source`: finds the images, checks all of them, and starts to decode."""
        paths = [self._folder] if self._folder.is_file() else list_images(self._folder)
        first = read_image(paths[0])
        self.width = first.shape[1]
        self.channels = 1 if first.ndim == 2 else first.shape[2]
        self._images = [self._promise(path) for path in paths]
        self._decoded = self._decode_ahead()
        self._next_image()

    def read(self, into: Image, timeout_s: float) -> BlockInfo:
        """See `Source`."""
        if self._playing is None:
            return BlockInfo(Status.END)
        if not self._pacing.wait_for(self._pacing.lines_sent + len(into), timeout_s):
            return BlockInfo(Status.TIMEOUT)
        lines = 0
        while self._playing is not None and lines < len(into):
            promised, image = self._playing
            if isinstance(image, str):
                if lines:
                    break
                self._images_unreadable += 1
                self._next_image()
                return self._pacing.sent(Status.LOST, promised.lines, "unreadable_image", image)
            count = min(len(into) - lines, promised.lines - self._row)
            into[lines : lines + count] = image[self._row : self._row + count]
            lines += count
            self._row += count
            if self._row == promised.lines:
                self._images_played += 1
                self._next_image()
        return self._pacing.sent(Status.OK, lines)

    def close(self) -> None:
        """See `Source`."""
        if self._decoded is not None:
            self._decoded.close()
        self._decoded = self._playing = None

    def _next_image(self) -> None:
        self._playing, self._row = None, 0  # lets go of the pixels before others are decoded
        if self._decoded is not None:
            self._playing = next(self._decoded, None)

    def _decode_ahead(self) -> Generator[tuple[WebImage, Image | str]]:
        """Decoded images in order; for one that cannot be decoded, the reason."""
        rounds = itertools.count() if self._loops == "forever" else range(self._loops)
        order = (image for _ in rounds for image in self._images)
        with ThreadPoolExecutor(1, thread_name_prefix="decoder") as decoder:
            ahead = decoder.submit(self._decode, next(order))
            for image in order:
                decoded = ahead.result()
                ahead = decoder.submit(self._decode, image)
                yield decoded
            yield ahead.result()

    def _decode(self, promised: WebImage) -> tuple[WebImage, Image | str]:
        try:
            image = read_image(promised.path)
        except FlawlineError as error:
            return promised, str(error)
        expected = (promised.lines, *line_shape(self))
        if image.shape != expected:
            return promised, f"{promised.path} is {image.shape}; expected {expected}, as when the stream began"
        return promised, image

    def _promise(self, path: Path) -> WebImage:
        """What a file promises, if it fits the first image."""
        try:
            header = inspect(path.read_bytes())
        except HeaderError as error:
            raise InputError(f"{path} {error}") from error
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from error
        if header.width != self.width:
            raise InputError(
                f"{path} is {header.width} px wide, the first image {self.width}; "
                "expected one width, as a web has: resize the images or sort them into folders"
            )
        is_colour = header.mode == "colour"
        if is_colour != (self.channels == 3):
            modes = ("RGB", "grey") if is_colour else ("grey", "RGB")
            raise InputError(f"{path} is {modes[0]}, the first image {modes[1]}; expected all grey or all RGB")
        return WebImage(path, header.height)
