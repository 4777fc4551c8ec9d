"""Writing a file whole or not at all, and what to say when the disk will not take it."""

import errno
import os
import secrets
from pathlib import Path

from flawline.runtime.errors import FlawlineError, InputError, ResourceError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_error(error: OSError, path: Path) -> FlawlineError:
    """Turns a failed write into the error that the user sees.

    Args:
        error: What the operating system said.
        path: What was to be written.

    Returns:
        A ResourceError if there is no room, otherwise an InputError.
    """
    if error.errno in _NO_ROOM:
        return ResourceError(
            f"{path} cannot be written: {error.strerror}; nothing was kept, free some space or choose another disk"
        )
    return InputError(
        f"{path} cannot be written: {error.strerror}; choose a folder that exists and that you may write to"
    )


def make_folder(path: Path) -> None:
    """Makes a folder, and those above it, unless it is there already.

    Args:
        path: The folder.

    Raises:
        ResourceError: The disk is full.
        InputError: Something else has the name, or the folder above may not be written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(error, path) from error


def partial_name(path: Path) -> Path:
    """A name beside `path`, hidden and not yet taken, under which it can be written before it is renamed."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


def sync_folder(path: Path) -> None:
    """Makes the names in a folder durable, as fsync does for the bytes of a file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Writes a file under a temporary name and renames it, so that no reader ever sees a part of it.

    Args:
        path: File to write; an existing one is replaced.
        data: Its bytes.

    Raises:
        ResourceError: The disk is full.
        InputError: The folder does not exist or may not be written to.
    """
    partial = partial_name(path)
    try:
        try:
            with partial.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise write_error(error, path) from error
