"""TensorRT as its Python bindings declare it, with nothing behind: names, signatures and types are NVIDIA's, answers are given.

The bindings of every version can be had without TensorRT, and import where empty libraries stand for it. What pybind11 writes
into docstrings says what each call takes and gives.
"""

import ctypes
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

# Of all versions together: those of bindings that a version does not have do no harm.
_SYMBOLS = [
    "_ZN11nvuffparser15createUffParserEv",
    "_ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi",
    "_ZN14nvcaffeparser117createCaffeParserEv",
    "_ZN14nvcaffeparser123shutdownProtobufLibraryEv",
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
]
_SIGNATURE = re.compile(r"(?:\d+\. )?\w*\((?!\*args)(.*)\) -> (.+)")
# Our code derives classes from them, so they are handed out as they are.
_BASES = ("ILogger", "IProgressMonitor")
# What is bound later than a call that gives it is declared by its name in C++, which may be another.
_OTHERWISE_NAMED = {"IParserError": "ParserError"}


def load_bindings(folder: Path, scratch: Path) -> Any:
    """Imports the bindings in a folder. A process can do so once.

    Args:
        folder: Where they are installed.
        scratch: Takes the empty libraries.
    """
    (binary,) = folder.glob("tensorrt_bindings/tensorrt*.so")
    for name in sorted(set(re.findall(rb"libnv\w+\.so\.\d+", binary.read_bytes()))):
        library = scratch / name.decode()
        source = "".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in _SYMBOLS)
        command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{library.name}", "-o", str(library), "-x", "c", "-"]
        subprocess.run(command, input=source, text=True, check=True)
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    sys.path.insert(0, str(folder))
    import tensorrt_bindings  # type: ignore[import-not-found]

    return tensorrt_bindings


class NotDeclaredError(Exception):
    """A call is not as the bindings declare it. Not an AttributeError: our code may not take it for a missing feature."""


class Declared:
    """The module.

    Args:
        bindings: The real one.

    Attributes:
        answers: What calls give and attributes hold, by `Class.name`: a value, or a function of the arguments. Without one,
            a call gives True, None or an object of the declared class.
        calls: `Class.name` and what was passed to it, in order.
    """

    def __init__(self, bindings: Any) -> None:
        self._bindings = bindings
        self.answers: dict[str, Any] = {}
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._bindings, name)
        if not isinstance(value, type) or name in _BASES or hasattr(value, "__members__"):
            return value
        return partial(self._construct, value)

    def object(self, name: str, /, **attributes: Any) -> "DeclaredObject":
        """An object of a class, with answers of its own."""
        return DeclaredObject(self, getattr(self._bindings, name), attributes)

    def answer(self, key: str, gives: str, arguments: tuple[Any, ...]) -> Any:
        """What a call gives, which must be what is declared."""
        if key in self.answers:
            given = self.answers[key]
            value = given(*arguments) if callable(given) else given
        elif gives in ("bool", "None"):
            value = True if gives == "bool" else None
        else:
            value = self.object(_name(gives))
        if value is not None and not self.fits(value, gives):
            raise NotDeclaredError(f"{key} gives {gives}, not {value!r}")
        return value

    def check(self, key: str, docstring: str | None, arguments: tuple[Any, ...], named: dict[str, Any]) -> str:
        """Compares a call with the declared ones, and returns what the one that fits gives."""
        declared = list(_signatures(docstring or ""))
        for signature in declared:
            try:
                bound = signature.takes.bind(None, *arguments, **named)
            except TypeError:
                continue
            if all(self.fits(bound.arguments[name], signature.types[name]) for name in list(bound.arguments)[1:]):
                return signature.gives
        takes = " or ".join(str(signature.types) for signature in declared) or "nothing that is known"
        raise NotDeclaredError(f"{key} was given {arguments} {named}; it is declared to take {takes}")

    def fits(self, value: Any, declared: str) -> bool:
        """Whether a value is of a declared type, or one that pybind11 converts to it."""
        plain = {"int": int, "typing.SupportsInt": int, "str": str, "tuple": tuple, "list": list, "bool": bool}
        if declared in plain:
            return isinstance(value, plain[declared]) and isinstance(value, bool) == (declared == "bool")
        name = _name(declared)
        if name in ("buffer", "Buffer", "IHostMemory"):
            return isinstance(value, bytes)
        if name == "Dims":
            return isinstance(value, tuple | list) and all(type(size) is int for size in value)
        expected = getattr(self._bindings, name)
        return (
            issubclass(value.declared, expected) if isinstance(value, DeclaredObject) else isinstance(value, expected)
        )

    def _construct(self, declared: type, *arguments: Any, **named: Any) -> "DeclaredObject":
        self.check(f"{declared.__name__}()", declared.__init__.__doc__, arguments, named)
        self.calls.append((declared.__name__, arguments))
        return self.object(declared.__name__)


class DeclaredObject:
    """An object of a declared class."""

    def __init__(self, module: Declared, declared: type, attributes: dict[str, Any]) -> None:
        self.__dict__.update(module=module, declared=declared, own=attributes)

    def __getattr__(self, name: str) -> Any:
        attribute = inspect.getattr_static(self.declared, name)
        key = f"{self.declared.__name__}.{name}"
        if not isinstance(attribute, property):
            return partial(self._call, key, attribute.__doc__)
        (read,) = _signatures(attribute.fget.__doc__)
        return self.own[name] if name in self.own else self.module.answer(key, read.gives, ())

    def __setattr__(self, name: str, value: Any) -> None:
        attribute = inspect.getattr_static(self.declared, name)
        key = f"{self.declared.__name__}.{name}"
        if not isinstance(attribute, property) or attribute.fset is None:
            raise NotDeclaredError(f"{key} cannot be set")
        self.module.check(key, attribute.fset.__doc__, (value,), {})
        self.module.calls.append((key, (value,)))
        self.own[name] = value

    def _call(self, key: str, docstring: str | None, *arguments: Any, **named: Any) -> Any:
        gives = self.module.check(key, docstring, arguments, named)
        self.module.calls.append((key, (*arguments, *named.values())))
        return self.module.answer(key, gives, arguments)


def _name(declared: str) -> str:
    """Name of a declared class in the module."""
    name = re.split(r"\.|::", declared)[-1]
    return _OTHERWISE_NAMED.get(name, name)


class _Signature(NamedTuple):
    takes: inspect.Signature
    types: dict[str, str]
    gives: str


def _signatures(docstring: str) -> Iterator[_Signature]:
    """The signatures that pybind11 lists in a docstring."""
    for line in docstring.splitlines():
        match = _SIGNATURE.fullmatch(line.strip())
        if match is None:
            continue
        parameters, types = [], {}
        for text in _split(match[1]):
            name, _, rest = text.partition(": ")
            types[name], _, default = rest.partition(" = ")
            kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
            parameters.append(inspect.Parameter(name, kind, default=default or inspect.Parameter.empty))
        yield _Signature(inspect.Signature(parameters), types, match[2])


def _split(arguments: str) -> Iterator[str]:
    """Splits at commas that are in no brackets."""
    depth = start = 0
    for index, letter in enumerate(arguments):
        depth += (letter in "([{<") - (letter in ")]}>")
        if letter == "," and depth == 0:
            yield arguments[start:index].strip()
            start = index + 1
    if arguments:
        yield arguments[start:].strip()
