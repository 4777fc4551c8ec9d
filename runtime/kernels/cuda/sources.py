"""The CUDA sources of a module: one file, what it includes, and the hash that names whatever is compiled from them."""

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

from flawline.runtime.errors import InputError

FOLDER = Path(__file__).parent
"""Where the kernels and the headers lie, also those for kernels elsewhere."""

_INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)


class Sources(NamedTuple):
    """A file that is compiled on its own.

    Attributes:
        path: The file.
        text: What is in it.
        headers: Text of everything that is included, by the name that it is included by.
    """

    path: Path
    text: str
    headers: dict[str, str]

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that stand for every byte that a compiler reads."""
        digest = hashlib.sha256(self.path.name.encode())
        for name, text in (("", self.text), *sorted(self.headers.items())):
            digest.update(f"\0{name}\0{text}".encode())
        return digest.hexdigest()[:16]


def read_sources(name: str, folder: Path = FOLDER) -> Sources:
    """Reads a file and all that it includes.

    Args:
        name: Of the file, without its suffix .cu.
        folder: Where it lies; what it includes lies beside it or among the kernels.

    Raises:
        InputError: A file is missing.
    """
    path = folder / f"{name}.cu"
    text = _read(path)
    headers: dict[str, str] = {}
    wanted = _INCLUDE.findall(text)
    while wanted:
        header = wanted.pop()
        if header not in headers:
            beside = folder / header
            headers[header] = _read(beside if beside.is_file() else FOLDER / header)
            wanted += _INCLUDE.findall(headers[header])
    return Sources(path, text, headers)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}; expected a CUDA source, reinstall flawline"
        ) from error
