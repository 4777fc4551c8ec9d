"""The TensorRT engine of a bundle for this device: named by the user, kept from before, or built now."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from flawline.runtime import files
from flawline.runtime.errors import EngineError, FlawlineError, InputError
from flawline.runtime.extras import LazyModule
from flawline.runtime.gpu.engine_builder import build_plan, require_precision
from flawline.runtime.gpu.engine_cache import (
    Engine,
    EngineKey,
    EngineOptions,
    cache_path,
    engines_folder,
    read_engine,
    timing_cache_path,
    write_engine,
)
from flawline.runtime.gpu.network import cut_features, cut_manifest, cut_output
from flawline.runtime.gpu.tensorrt import TensorRtEngine

if TYPE_CHECKING:
    from pathlib import Path

    import tensorrt

    from flawline.runtime.bundle import Bundle
    from flawline.runtime.gpu.device import Device
    from flawline.runtime.gpu.pipeline import EngineOpener
else:
    tensorrt = LazyModule("tensorrt", "pip install 'flawline[tensorrt]'; on a Jetson it comes with JetPack")

Say = Callable[[str], None]
"""Takes a line that tells what is being done."""

# On standard error unless the program says otherwise: whoever waits for minutes must know what for.
_log = logging.getLogger(__name__)


def key_of(bundle: Bundle, device: Device, batch: int) -> EngineKey:
    """What an engine must have been built from and for to run a bundle here.

    Args:
        bundle: In the precision and with the map that are wanted.
        device: The GPU.
        batch: Most frames at once.

    Raises:
        InputError: TensorRT does not compute in that precision, or the batch is none.
        MissingExtraError: TensorRT is not installed.
    """
    require_precision(bundle.manifest.network.precision)
    if batch < 1:
        raise InputError(f"batch is {batch}; expected 1 or more frames")
    return EngineKey(
        bundle=bundle.hash,
        precision=bundle.manifest.network.precision,
        batch=batch,
        height=bundle.manifest.input.height,
        width=bundle.manifest.input.width,
        tensorrt=tensorrt.__version__,
        device=device.name,
        compute_capability=device.arch,
        multiprocessors=device.multiprocessors,
        memory_gib=4 * math.ceil(device.total_bytes / (4 << 30)),
        output=cut_output(bundle.manifest),
    )


def tensorrt_opener(
    bundle: Bundle, device: Device, *, batch: int, path: Path | None = None, say: Say = _log.warning
) -> EngineOpener:
    """What loads the engine of a bundle.

    Args:
        bundle: In the precision that is wanted.
        device: The GPU.
        batch: Frames that are run at once.
        path: An engine file, which is used or refused; None for the engine of the cache, which is built if it is not there.
        say: Takes each line that tells why an engine is built; the logger of this module if nothing is named.

    Returns:
        A function that raises what `find_engine` and `TensorRtEngine` do.
    """

    def open_engine(input_address: int, output_addresses: tuple[int, ...]) -> TensorRtEngine:
        key = key_of(bundle, device, batch)
        engine = find_engine(bundle, key, path=path, say=say)
        try:
            return TensorRtEngine(engine, cut_manifest(bundle.manifest), batch, input_address, output_addresses)
        except EngineError as error:
            raise EngineError(f"{cache_path(key) if path is None else path}: {error}") from error

    return open_engine


def find_engine(bundle: Bundle, key: EngineKey, *, path: Path | None = None, say: Say) -> Engine:
    """The engine that is to run a bundle. The context of the GPU is current.

    Args:
        bundle: In the precision that is wanted.
        key: What the engine must be for.
        path: See `tensorrt_opener`.
        say: Likewise.

    Raises:
        EngineError: The file that was named is damaged or for something else, or TensorRT refuses the network.
        FlawlineError: What `build_engine` and `write_engine` raise.
    """
    if path is not None:
        return read_engine(path, key)
    engine = kept_engine(key, say=say)
    if engine is None:
        files.make_folder(engines_folder())
        engine = build_engine(bundle, key, EngineOptions(), say=say)
        write_engine(cache_path(key), key, engine)
    return engine


def kept_engine(key: EngineKey, *, say: Say) -> Engine | None:
    """The engine of the cache, if it is there and may be used; if it may not, `say` takes the reason."""
    try:
        return read_engine(cache_path(key), key)
    except EngineError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            say(str(error))
        return None


def build_engine(bundle: Bundle, key: EngineKey, options: EngineOptions, *, say: Say) -> Engine:
    """Builds the engine of a bundle, with the help of what earlier builds have measured. The context of the GPU is current.

    Args:
        bundle: In the precision that is wanted.
        key: What the engine is for.
        options: What shapes it besides.
        say: Takes lines that tell what is being done.

    Raises:
        FlawlineError: As for `build_plan`.
    """
    say(f"building an engine for {key.device} with TensorRT {key.tensorrt}; this takes minutes, once")
    timings = timing_cache_path(key)
    known = b""
    with suppress(OSError):  # it only takes longer
        known = timings.read_bytes()
    manifest = cut_manifest(bundle.manifest)
    built = build_plan(cut_features(bundle), manifest, batch=key.batch, options=options, timings=known)
    try:
        files.make_folder(timings.parent)
        files.write_whole(timings, built.timings)
    except FlawlineError as error:
        # The engine is there, and cost minutes.
        say(f"the next engine will take as long: {error}")
    return Engine(options, built.plan)
