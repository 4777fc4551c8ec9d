"""Random projections of feature vectors, drawn from a generator that is specified word by word.

Every kind keeps squared norms in expectation, so that one epsilon means the same for all of them.

The words are the 64-bit outputs of Philox4x64-10 (Salmon et al. 2011) with the seed as key and the counter starting at
zero, as `numpy.random.Philox(key=seed).random_raw()` gives them. They are used in order, row by row:

- `select`: partial Fisher-Yates over 0..D-1, word i swaps element i with element i + word mod (D - i); the first d,
  sorted.
- `sparse`: entry = +1 if word mod 6 is 0, -1 if it is 1, else 0.
- `gaussian`: Box-Muller on pairs of words (a, b): u = (floor(a / 2^11) + 1) / 2^53, v = floor(b / 2^11) / 2^53, giving
  sqrt(-2 ln u) cos(2 pi v), then sqrt(-2 ln u) sin(2 pi v).
- `orthogonal`: rows of the Gaussian matrix, orthonormalised in order.
"""

import math
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError

Kind = Literal["gaussian", "orthogonal", "sparse", "select", "none"]
KINDS: tuple[Kind, ...] = get_args(Kind)
GENERATOR: Final = "philox4x64"


def stored(kind: Kind, *, input_dimension: int, dimension: int, seed: int) -> npt.NDArray[Any] | None:
    """Draws a projection in the compact form in which a bundle ships it.

    Args:
        kind: `gaussian` (Zhang, Zhang, Dong 2021, equation 6), `orthogonal` (the same report, section 3), `sparse`
            (Achlioptas 2003, equation 2), `select` (Defard et al. 2020: random channels) or `none`.
        input_dimension: Channels D of the concatenated feature maps.
        dimension: Channels d that remain.
        seed: Key of the generator, 0 or more.

    Returns:
        float32 (d, D) for gaussian and orthogonal, int8 (d, D) signs for sparse, int32 (d,) channels for select, and
        None for none.

    Raises:
        InputError: d is not between 1 and D, the seed is negative, or the kind is unknown.
    """
    if kind not in KINDS:
        raise InputError(f"projection '{kind}' is unknown; expected one of {', '.join(KINDS)}")
    if not 0 <= seed < 1 << 64:
        raise InputError(f"projection seed is {seed}; expected 0 to 2^64 - 1")
    if kind == "none":
        if dimension != input_dimension:
            raise InputError(
                f"projection 'none' keeps all {input_dimension} channels, but dimension {dimension} was asked for; "
                "leave the dimension out or choose a projection"
            )
        return None
    if not 1 <= dimension <= input_dimension:
        raise InputError(
            f"dimension is {dimension}; the chosen layers have {input_dimension} channels, so it must be 1 to "
            f"{input_dimension}"
        )
    shape = (dimension, input_dimension)
    if kind == "select":
        return _selection(_words(seed, dimension), input_dimension)
    if kind == "sparse":
        residue = _words(seed, dimension * input_dimension) % np.uint64(6)
        return np.asarray((residue == 0).astype(np.int8) - (residue == 1), np.int8).reshape(shape)
    normal = _normal(_words(seed, 2 * ((dimension * input_dimension + 1) // 2)))[: dimension * input_dimension]
    normal = normal.reshape(shape)
    if kind == "gaussian":
        return np.asarray(normal / math.sqrt(dimension), np.float32)
    q, r = np.linalg.qr(normal.T)
    rows = (q * np.sign(np.diag(r))).T
    return np.asarray(rows * math.sqrt(input_dimension / dimension), np.float32)


def expand(kind: Kind, data: npt.NDArray[Any] | None, input_dimension: int) -> npt.NDArray[np.float32]:
    """Turns the stored form of a projection into the matrix it stands for.

    Args:
        kind: Kind of the projection.
        data: What `stored` returned.
        input_dimension: Channels D of the concatenated feature maps.

    Returns:
        float32 (d, D), scaled so that squared norms are kept in expectation: signs by sqrt(3 / d), selected channels
        by sqrt(D / d).
    """
    if data is None:
        return np.eye(input_dimension, dtype=np.float32)
    dimension = data.shape[0]
    if kind == "select":
        rows = np.zeros((dimension, input_dimension), np.float32)
        rows[np.arange(dimension), data.astype(np.int64)] = math.sqrt(input_dimension / dimension)
        return rows
    if kind == "sparse":
        return np.asarray(data * math.sqrt(3 / dimension), np.float32)
    return np.asarray(data, np.float32)


def matrix(kind: Kind, *, input_dimension: int, dimension: int, seed: int) -> npt.NDArray[np.float32]:
    """Draws a projection as a float32 (d, D) matrix; see `stored` for the arguments and errors."""
    data = stored(kind, input_dimension=input_dimension, dimension=dimension, seed=seed)
    return expand(kind, data, input_dimension)


def _words(seed: int, count: int) -> npt.NDArray[np.uint64]:
    return np.asarray(np.random.Philox(key=seed).random_raw(count), np.uint64)


def _normal(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    uniform = (words >> np.uint64(11)).astype(np.float64)
    radius = np.sqrt(-2 * np.log((uniform[0::2] + 1) * 2.0**-53))
    angle = 2 * np.pi * 2.0**-53 * uniform[1::2]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()


def _selection(words: npt.NDArray[np.uint64], population: int) -> npt.NDArray[np.int32]:
    channels = np.arange(population, dtype=np.int32)
    for i, word in enumerate(words.tolist()):
        j = i + word % (population - i)
        channels[i], channels[j] = channels[j], channels[i]
    return np.sort(channels[: len(words)])
