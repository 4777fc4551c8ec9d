"""Flat field: what each pixel of a line camera adds in the dark and how strongly it answers to light is taken out.

A pixel becomes (in - dark) x gain, where dark and white reference lines say what dark and gain are, as cameras do it
themselves.

Gains are whole multiples of 1 / 4096 up to 65535 / 4096. A difference of two bytes times such a gain has at most 24 bits, which
float32 holds exactly: OpenCV's floating-point multiplication gives what integers give, rounded half to even, on every machine.
"""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flawline.runtime.bundle import tensors
from flawline.runtime.errors import BundleError, InputError
from flawline.runtime.extras import LazyModule
from flawline.runtime.files import write_whole

if TYPE_CHECKING:
    import cv2
else:
    cv2 = LazyModule("cv2", "pip install opencv-python-headless")

RECOMMENDED_LINES = 2048
"""Lines to average, so that the noise of the references is no stripe in every corrected line."""

GAIN_ONE = 4096
GAIN_MAX = 65535
VERSION = 1

_SATURATED_SHARE = 0.01  # of a pixel's white lines at 255: their average is below the truth
_SMALLEST_SPAN = 8.0  # grey levels between dark and white: with less, the gain is mostly noise
_FAULTY_SHARE = 0.01  # of the pixels: with more, the reference is at fault and not the camera
_CHUNK_LINES = 32  # their pixels and tables stay in the cache of a core
_MAX_FILE_BYTES = 1 << 26
_SHOWN = 8


class LineAverage:
    """Averages reference lines pixel by pixel.

    Args:
        line_shape: (width,) or (width, 3).

    Attributes:
        lines: Lines that were added.
    """

    def __init__(self, line_shape: tuple[int, ...]) -> None:
        self._sum = np.zeros(line_shape, np.uint64)
        self._saturated = np.zeros(line_shape, np.uint64)
        self.lines = 0

    def add(self, lines: npt.NDArray[np.uint8]) -> None:
        """Takes lines: uint8 (n, width[, 3])."""
        self._sum += lines.sum(axis=0, dtype=np.uint64)
        self._saturated += np.count_nonzero(lines == 255, axis=0).astype(np.uint64)
        self.lines += len(lines)

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """Average line, float64 (width[, 3]), grey levels."""
        return self._sum / self.lines

    @property
    def saturated_share(self) -> npt.NDArray[np.float64]:
        """Share of lines on which a pixel is at 255, float64 (width[, 3])."""
        return self._saturated / self.lines


@dataclass(frozen=True, eq=False, slots=True)
class FlatField:
    """Dark levels and gains.

    Attributes:
        dark: uint8 (width[, 3]), grey levels.
        gain: int32 (width[, 3]), in units of 1 / 4096, 1 to 65535.
        faulty: int32 (n,), pixels across that no gain mends, in rising order: they take the value of the nearest sound one.
    """

    dark: npt.NDArray[np.uint8]
    gain: npt.NDArray[np.int32]
    faulty: npt.NDArray[np.int32]


def make_flat_field(dark: LineAverage, white: LineAverage) -> FlatField:
    """Finds dark levels and gains that keep the average brightness of the white reference above the dark one.

    Args:
        dark: Lines without light.
        white: Lines of an even white surface that saturates no pixel.

    Returns:
        The correction; its `faulty` names dead and saturated pixels.

    Raises:
        InputError: The references are empty, differ in width, or more than 1 % of the pixels are dead or saturated.
    """
    for name, average in (("dark", dark), ("white", white)):
        if average.lines == 0:
            raise InputError(f"the {name} reference holds no line; expected {RECOMMENDED_LINES} or more")
    if dark.mean.shape != white.mean.shape:
        raise InputError(
            f"the dark reference has lines of {_shown_shape(dark.mean.shape)}, the white one of {_shown_shape(white.mean.shape)}; "
            "expected the same camera with the same settings"
        )
    # Of the dark levels that are subtracted, so that white comes out even.
    levels = np.rint(dark.mean)
    span = white.mean - levels
    saturated = white.saturated_share > _SATURATED_SHARE
    sound = (span >= _SMALLEST_SPAN) & ~saturated
    target = float(span[sound].mean()) if sound.any() else 0.0
    gain = np.rint(GAIN_ONE * target / np.maximum(span, _SMALLEST_SPAN))
    sound &= gain <= GAIN_MAX
    _require_mostly_sound(sound, saturated)
    return FlatField(
        dark=np.where(sound, levels, 0).astype(np.uint8),
        gain=np.where(sound, np.maximum(gain, 1), GAIN_ONE).astype(np.int32),
        faulty=np.flatnonzero(~_by_pixel(sound).all(axis=1)).astype(np.int32),
    )


def _require_mostly_sound(sound: npt.NDArray[np.bool_], saturated: npt.NDArray[np.bool_]) -> None:
    bad: npt.NDArray[np.bool_] = np.asarray(~_by_pixel(sound).all(axis=1))
    if bad.mean() <= _FAULTY_SHARE:
        return
    clipped = _by_pixel(saturated).any(axis=1)
    if clipped.mean() > _FAULTY_SHARE:
        raise InputError(
            f"the white reference is saturated in {clipped.sum()} of {len(bad)} pixels ({shown_pixels(np.flatnonzero(clipped))}); "
            "expected none: take less light or a shorter exposure"
        )
    raise InputError(
        f"the white reference is hardly brighter than the dark one in {bad.sum()} of {len(bad)} pixels "
        f"({shown_pixels(np.flatnonzero(bad))}); expected at least {_SMALLEST_SPAN:.0f} grey levels in 99 % of them: "
        "are the references exchanged, or the ends of the line in the shade?"
    )


class FlatFieldCorrector:
    """Corrects blocks of lines in place.

    Args:
        field: What to take out.
        line_shape: (width,) or (width, 3), of the lines that will come.

    Raises:
        InputError: The flat field is of other lines.
    """

    def __init__(self, field: FlatField, line_shape: tuple[int, ...]) -> None:
        if field.dark.shape != line_shape:
            raise InputError(
                f"the flat field is of lines of {_shown_shape(field.dark.shape)}, the camera's are of {_shown_shape(line_shape)}; "
                "expected the same: make one with `flawline camera flat-field`"
            )
        self._line_shape = line_shape
        # Rows are repeated, so that OpenCV adds block to block.
        self._dark = np.tile(field.dark.reshape(1, -1), (_CHUNK_LINES, 1))
        self._gain = np.tile((field.gain.reshape(1, -1) / GAIN_ONE).astype(np.float32), (_CHUNK_LINES, 1))
        sound = np.setdiff1d(np.arange(line_shape[0]), field.faulty)
        self._replaced = [(int(pixel), int(sound[np.argmin(np.abs(sound - pixel))])) for pixel in field.faulty]

    def __call__(self, lines: npt.NDArray[np.uint8]) -> None:
        """Corrects lines.

        Args:
            lines: uint8 (n, width[, 3]), C-contiguous; changed in place.

        Raises:
            ValueError: They are not contiguous or of another shape.
        """
        if lines.shape[1:] != self._line_shape or not lines.flags.c_contiguous:
            raise ValueError(f"lines {lines.shape} to correct; expected contiguous ones of {self._line_shape}")
        flat = lines.reshape(len(lines), -1)
        for first in range(0, len(flat), _CHUNK_LINES):
            chunk = flat[first : first + _CHUNK_LINES]
            cv2.subtract(chunk, self._dark[: len(chunk)], chunk)
            cv2.multiply(chunk, self._gain[: len(chunk)], chunk, 1.0, cv2.CV_8U)
        for faulty, sound in self._replaced:
            lines[:, faulty] = lines[:, sound]


def save(path: Path, field: FlatField) -> None:
    """Writes a flat field as a safetensors file, whole or not at all; an existing one is replaced.

    Args:
        path: File to write.
        field: What to write.

    Raises:
        InputError: The folder does not exist or may not be written to.
        ResourceError: The disk is full.
    """
    arrays: dict[str, npt.NDArray[Any]] = {
        "version": np.array([VERSION], np.int32),
        "dark": field.dark,
        "gain": field.gain,
    }
    if len(field.faulty):
        arrays["faulty"] = field.faulty
    file = BytesIO()
    tensors.write(file, arrays)
    write_whole(path, file.getbuffer())


def load(path: Path) -> FlatField:
    """Reads a flat field, and believes nothing of the file that was not checked.

    Args:
        path: What `save` wrote.

    Raises:
        InputError: The file is missing, damaged, of a newer version, or no flat field.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; expected a flat field") from error
    if len(data) > _MAX_FILE_BYTES:
        raise InputError(f"{path} is larger than {_MAX_FILE_BYTES} bytes; expected a flat field")
    try:
        arrays = tensors.load(data, str(path))
    except BundleError as error:
        raise InputError(f"{error}: it is no flat field, or a damaged one") from error
    version = arrays.pop("version", None)
    if version is None or version.dtype != np.int32 or version.shape != (1,):
        raise InputError(f"{path} has no version; expected a flat field that `flawline camera flat-field` made")
    if version[0] != VERSION:
        raise InputError(f"{path} is a flat field of version {version[0]}; expected {VERSION}")
    if not {"dark", "gain"} <= set(arrays) <= {"dark", "gain", "faulty"}:
        raise InputError(
            f"{path} holds {', '.join(sorted(arrays)) or 'nothing'}; expected dark, gain and, if there are any, faulty"
        )
    return _checked(arrays["dark"], arrays["gain"], arrays.get("faulty", np.zeros(0, np.int32)), path)


def _checked(dark: npt.NDArray[Any], gain: npt.NDArray[Any], faulty: npt.NDArray[Any], path: Path) -> FlatField:
    if dark.dtype != np.uint8 or dark.ndim not in (1, 2) or dark.shape[1:] not in ((), (3,)):
        raise InputError(f"{path}: dark is {dark.dtype} {dark.shape}; expected uint8 (width,) or (width, 3)")
    if gain.dtype != np.int32 or gain.shape != dark.shape:
        raise InputError(f"{path}: gain is {gain.dtype} {gain.shape}; expected int32 {dark.shape}")
    if gain.min() < 1 or gain.max() > GAIN_MAX:
        raise InputError(f"{path}: gain has {gain.min()} to {gain.max()}; expected 1 to {GAIN_MAX}")
    width = len(dark)
    if faulty.dtype != np.int32 or faulty.ndim != 1:
        raise InputError(f"{path}: faulty is {faulty.dtype} {faulty.shape}; expected int32 (n,)")
    # Compared, since differences of int32 may wrap.
    is_rising = bool((faulty[1:] > faulty[:-1]).all())
    if len(faulty) and (len(faulty) >= width or faulty[0] < 0 or faulty[-1] >= width or not is_rising):
        raise InputError(f"{path}: faulty are not rising pixels of a line of {width}")
    return FlatField(dark, gain, faulty)


def shown_pixels(pixels: npt.NDArray[np.integer[Any]]) -> str:
    """Pixels in words, cut short."""
    more = f" and {len(pixels) - _SHOWN} more" if len(pixels) > _SHOWN else ""
    return "pixel " + ", ".join(str(pixel) for pixel in pixels[:_SHOWN]) + more


def _by_pixel(values: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    return values.reshape(len(values), -1)


def _shown_shape(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} px" + (" RGB" if len(shape) > 1 else " grey")
