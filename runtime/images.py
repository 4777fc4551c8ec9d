"""Image files as arrays: every picture that is not exactly what it should be is an error with its name."""

import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule
from flawline.runtime.files import write_whole
from flawline.runtime.image_headers import Header, HeaderError, inspect

if TYPE_CHECKING:
    import cv2
else:
    cv2 = LazyModule("cv2", "pip install opencv-python-headless")

Image = NDArray[np.uint8]

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")

MAX_PIXELS = 1 << 28
"""16,384 x 16,384: what announces more is a damaged header, not a camera's picture."""

SMALLEST_SIDE_PX = 16
"""A frame with a shorter side is no picture of a part; a network makes a score of it all the same."""

_MAX_FILE_BYTES = 1 << 30
_SHOWN = 5
_SILENT = 0


def use_threads(threads: int) -> None:
    """Sets how many threads OpenCV takes in this process, whose default is every core.

    Args:
        threads: As many as the engine and the kernel take.

    Raises:
        MissingExtraError: OpenCV is not installed.
    """
    cv2.setNumThreads(threads)


def list_images(folder: Path, recursive: bool = False) -> list[Path]:
    """The image files of a folder.

    Args:
        folder: Where to look.
        recursive: Also look in its sub-folders.

    Returns:
        Paths of files with one of `ENDINGS` in either case, none hidden, in the order of their names (code points,
        so that it is the same everywhere).

    Raises:
        InputError: The folder does not exist, is a file, or holds no image.
    """
    folder = Path(folder)
    try:
        entries = sorted(folder.iterdir(), key=lambda path: path.name)
    except FileNotFoundError as error:
        raise InputError(f"{folder} does not exist; expected a folder of images") from error
    except NotADirectoryError as error:
        raise InputError(f"{folder} is a file; expected a folder of images") from error
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from error
    found = sorted(_walk(entries, recursive), key=lambda path: path.relative_to(folder).parts)
    if found:
        return found
    folders = [path.name for path in entries if path.is_dir() and not _is_hidden(path)]
    if folders and not recursive:
        names = ", ".join(folders[:_SHOWN]) + (f" and {len(folders) - _SHOWN} more" if len(folders) > _SHOWN else "")
        raise InputError(f"{folder} holds sub-folders ({names}) and no image; give the folder that holds the images")
    raise InputError(f"{folder} holds no image; expected files ending in {', '.join(ENDINGS)}")


def _walk(entries: list[Path], recursive: bool) -> Iterator[Path]:
    for path in entries:
        if _is_hidden(path):
            continue
        # A link to a folder is not followed: it could lead back up.
        if recursive and path.is_dir() and not path.is_symlink():
            yield from _walk(list(path.iterdir()), recursive)
        elif path.suffix.lower() in ENDINGS and not path.is_dir():
            yield path


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".")


def read_image(path: Path) -> Image:
    """Reads an 8-bit grey or RGB image. Its content decides on the format, not its name.

    An EXIF orientation is applied, as viewers do. PNG is verified by its checksums; JPEG, BMP and TIFF carry none.

    Args:
        path: PNG, JPEG, BMP or TIFF file.

    Returns:
        uint8 (height, width) for a grey file, (height, width, 3) in RGB order for a colour file.

    Raises:
        InputError: Missing, empty, not an image, truncated, damaged, 16-bit, with alpha, CMYK, animated or too large.
    """
    path = Path(path)
    data = read_image_bytes(path)
    try:
        header = inspect(data)
    except HeaderError as error:
        raise InputError(f"{path} {error}") from error
    if not 1 <= header.width * header.height <= MAX_PIXELS:
        size = f"{header.width} x {header.height}"
        raise InputError(f"{path} announces {size} pixels; expected between 1 and {MAX_PIXELS} in all")
    image = _decode(data, header)
    if image is None:
        raise InputError(f"{path} is damaged: its {header.format} data cannot be decoded; write it again")
    return image


def read_image_bytes(path: Path) -> bytes:
    """The bytes of an image file, whatever they are.

    Args:
        path: A regular file.

    Raises:
        InputError: Missing, empty, a folder, a device, a pipe, or too large for an image file.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise InputError(f"{path} is a folder; expected an image file")
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path} is not a regular file; expected an image file")
        if status.st_size > _MAX_FILE_BYTES:
            raise InputError(
                f"{path} holds {status.st_size} bytes; expected an image file of at most {_MAX_FILE_BYTES}"
            )
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; expected an image file") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if not data:
        raise InputError(f"{path} is empty; expected an image file")
    return data


def _decode(data: bytes, header: Header) -> Image | None:
    buffer = np.frombuffer(data, np.uint8)
    flag = cv2.IMREAD_GRAYSCALE if header.mode == "grey" else cv2.IMREAD_COLOR
    with quiet:
        try:
            decoded: NDArray[Any] | None = cv2.imdecode(buffer, flag)
        except cv2.error:
            return None
    # Orientation may have swapped the sides; anything else means that header and pixels disagree.
    if decoded is None or sorted(decoded.shape[:2]) != sorted((header.height, header.width)):
        return None
    if header.mode == "grey palette":
        return np.ascontiguousarray(decoded[:, :, 0])
    if header.mode == "colour":
        return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)
    return np.asarray(decoded, np.uint8)


class _Quiet:
    """Keeps OpenCV from writing on standard error what an exception says already.

    Its log level belongs to the process, so threads share it: the first to come saves it, the last to go restores it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._level = 0

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._level = _log().getLogLevel()
                _log().setLogLevel(_SILENT)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                _log().setLogLevel(self._level)


def _log() -> Any:
    # OpenCV 5 moved these functions to a module of their own.
    return cv2.utils.logging if hasattr(cv2.utils, "logging") else cv2


quiet = _Quiet()


def write_image(path: Path, image: Image) -> None:
    """Writes an image in the format that its ending names; an existing file is replaced in one step.

    Args:
        path: File to write, with one of `ENDINGS`.
        image: uint8 (height, width) grey or (height, width, 3) RGB.

    Raises:
        InputError: Another ending, another kind of array, or the folder cannot be written to.
        ResourceError: The disk is full.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise InputError(f"{path} does not name an image; expected an ending among {', '.join(ENDINGS)}")
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)) or not image.size:
        raise InputError(f"an array {image.dtype} {image.shape} is not an image; expected uint8 (h, w) or (h, w, 3)")
    stored = image if image.ndim == 2 else cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR)
    with quiet:
        done, encoded = cv2.imencode(ending, stored)
    if not done:
        raise InputError(f"{path}: OpenCV cannot encode {image.shape} as {ending}; choose .png")
    write_whole(path, encoded.data)


def require_mode(image: Image, channels: int, path: Path) -> None:
    """Refuses a colour image where grey is expected, and the reverse.

    Args:
        image: uint8 (height, width) or (height, width, 3).
        channels: 1 for grey, 3 for RGB.
        path: Where the image comes from.

    Raises:
        InputError: The image is of the other mode.
    """
    words = {1: "grey", 3: "RGB"}
    received = 1 if image.ndim == 2 else image.shape[2]
    if received != channels:
        raise InputError(
            f"{path} is {words.get(received, f'of {received} channels')}; expected {words[channels]} like the good images"
        )


def require_size(image: Image, smallest_px: int, where: str | Path) -> None:
    """Refuses an image that is too small to mean anything.

    Args:
        image: uint8 (height, width) or (height, width, channels).
        smallest_px: Smallest height and smallest width, in pixels; `SMALLEST_SIDE_PX` for whatever is to be scored.
        where: The image's path, or what else it is called in the message.

    Raises:
        InputError: A side is shorter.
    """
    height, width = image.shape[:2]
    if min(height, width) < smallest_px:
        raise InputError(f"{where} is {width} x {height} px; expected at least {smallest_px} px each way")
