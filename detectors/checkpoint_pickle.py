"""What a pickle in a checkpoint must hold to before torch may load it: nothing that takes time out of proportion to its size.

The check itself takes microseconds and tens of bytes for each byte of it: its reader lets no more bytes come here than a checkpoint
of the network may have.

torch refuses code, but hashes whatever a pickle uses as a key: a tuple of a tuple twice over, forty deep, takes hours, and one
nested deeply enough overflows the stack. What `torch.save` writes of a checkpoint is shallow, and takes up no tuple again.
"""

import pickletools
from typing import Final, NamedTuple

_DEEPEST: Final = 100
# Strings, names of types, and what cannot be hashed at all.
_REUSABLE: Final = frozenset(
    {
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
        "SHORT_BINSTRING",
        "BINSTRING",
        "GLOBAL",
        "EMPTY_LIST",
        "EMPTY_DICT",
    }
)
_PUTS: Final = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
_GETS: Final = frozenset({"GET", "BINGET", "LONG_BINGET"})
# What puts items into an object that is there already, as long lists and dictionaries are filled by parts.
_FILLS: Final = frozenset({"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"})


class _Value(NamedTuple):
    """What lies on the stack of a pickle: how deep it is nested, and the operation that made it."""

    depth: int
    made_by: str


_MARK: Final = _Value(0, "MARK")


def check_pickle(content: bytes) -> None:
    """Refuses what would take long to load or overflow a stack; whether the rest is a checkpoint its reader says.

    Args:
        content: A pickle, of a size that is bounded.

    Raises:
        ValueError: It is no pickle, its objects are nested too deeply, or one is taken up again that may be hashed and
            hold others.
    """
    stack: list[_Value] = []
    memo: dict[int, _Value] = {}
    for operation, argument, _ in pickletools.genops(content):
        name = operation.name
        if name in _PUTS:
            memo[len(memo) if argument is None else int(argument)] = _top(stack)
        elif name in _GETS:
            value = None if argument is None else memo.get(int(argument))
            if value is None or value.made_by not in _REUSABLE:
                raise ValueError("it takes up an object again")
            stack.append(value)
        elif name == "MARK":
            stack.append(_MARK)
        else:
            _apply(operation, stack)


def _apply(operation: pickletools.OpcodeInfo, stack: list[_Value]) -> None:
    taken = []
    before = operation.stack_before
    if pickletools.markobject in before:
        while (value := _pop(stack)) is not _MARK:
            taken.append(value)
        before = before[: before.index(pickletools.markobject)]
    under = [_pop(stack) for _ in before]
    items, deepest = [*taken, *under], 0
    if operation.name in _FILLS and under:
        # The object is the lowest of what is taken; only what goes into it is one deeper.
        deepest, items = under[-1].depth, [*taken, *under[:-1]]
    depth = max([deepest, *(item.depth + 1 for item in items)])
    if depth > _DEEPEST:
        raise ValueError(f"its objects are nested more than {_DEEPEST} deep")
    stack.extend(_Value(depth, operation.name) for _ in operation.stack_after)


def _pop(stack: list[_Value]) -> _Value:
    value = _top(stack)
    stack.pop()
    return value


def _top(stack: list[_Value]) -> _Value:
    if not stack:
        raise ValueError("it is no pickle")
    return stack[-1]
