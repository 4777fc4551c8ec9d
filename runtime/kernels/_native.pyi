from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]
Integers: TypeAlias = npt.NDArray[np.int32]
AxisTaps: TypeAlias = tuple[Integers, Integers, Floats]
Resampling: TypeAlias = tuple[int, int, AxisTaps, AxisTaps]
Filter: TypeAlias = tuple[Floats, Integers, Integers]
Gaussians: TypeAlias = tuple[Floats, npt.NDArray[Any], Floats, Integers, npt.NDArray[np.uint16], int, bool]

def implementations() -> list[str]: ...
def embeddings(
    implementation: str,
    maps: Sequence[Floats],
    resamplings: Sequence[Resampling],
    height: int,
    width: int,
    threads: int,
    out: Floats,
    /,
) -> None: ...
def mahalanobis(
    implementation: str, x: Floats, gaussians: Gaussians, order: Integers, threads: int, out: Floats, /
) -> None: ...
def smooth(implementation: str, maps: Floats, smoothing: Filter, threads: int, out: Floats, /) -> None: ...
def proximal_error(
    implementation: str,
    taps: Floats,
    image: npt.NDArray[Any],
    reconstruction: Floats,
    threads: int,
    out: Floats,
    maxima: Floats,
    means: Floats,
    /,
) -> None: ...
def checksum(implementation: str, data: npt.NDArray[np.uint8], threads: int, /) -> int: ...

class MahalanobisMap:
    def __init__(
        self,
        implementation: str,
        gaussians: Gaussians,
        resamplings: Sequence[Resampling],
        smoothing: Filter,
        order: Integers,
        height: int,
        width: int,
        group_rows: int,
        batch: int,
        threads: int,
    ) -> None: ...
    def run(self, maps: Sequence[Floats], out: Floats, scores: Floats) -> None: ...

class ProximalErrorMap:
    def __init__(
        self,
        implementation: str,
        taps: Floats,
        of_bytes: bool,
        channels: int,
        height: int,
        width: int,
        batch: int,
        threads: int,
    ) -> None: ...
    def run(
        self, image: npt.NDArray[Any], reconstruction: Floats, out: Floats | None, maxima: Floats, means: Floats
    ) -> None: ...
