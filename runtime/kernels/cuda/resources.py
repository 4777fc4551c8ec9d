"""What kernels take of a multiprocessor, as the assembler reports it."""

import re
from collections.abc import Iterator
from typing import NamedTuple

_KERNEL = re.compile(r"Compiling entry function '(\S+)' for '(sm_\w+)'")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers(?:.*?, (\d+) bytes smem)?")


class Resources(NamedTuple):
    """Of one kernel on one architecture.

    Attributes:
        kernel: Its name.
        architecture: As sm_87.
        registers: Of a thread.
        stack_bytes: Of a thread, in memory.
        spilled_bytes: Stores and loads of a thread that did not fit into registers, by the number of instructions in
            the code, not of times that they run.
        shared_bytes: Static shared memory of a block; what a launch asks for comes on top.
    """

    kernel: str
    architecture: str
    registers: int
    stack_bytes: int
    spilled_bytes: int
    shared_bytes: int


def read_resources(log: str) -> Iterator[Resources]:
    """Reads what `ptxas -v` says, be it run by nvcc or by NVRTC.

    Args:
        log: Its output.

    Yields:
        One for each kernel and architecture, in the order of the log.

    Raises:
        ValueError: A kernel is named without its resources.
    """
    found = list(_KERNEL.finditer(log))
    ends = [one.start() for one in found[1:]] + [len(log)]
    for one, end in zip(found, ends, strict=True):
        spills, used = _SPILLS.search(log, one.end(), end), _USED.search(log, one.end(), end)
        if spills is None or used is None:
            raise ValueError(f"{one[1]} for {one[2]}: the log of the assembler names no registers or spills")
        stack, stores, loads = map(int, spills.groups())
        yield Resources(one[1], one[2], int(used[1]), stack, stores + loads, int(used[2] or 0))
