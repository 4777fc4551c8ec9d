"""A bundle's network as a TensorRT engine, in a file for one device and one version of TensorRT."""

import os
from pathlib import Path

from flawline.runtime import files
from flawline.runtime.bundle import Bundle
from flawline.runtime.bundle.manifest import ClassifierManifest
from flawline.runtime.errors import InputError
from flawline.runtime.gpu.device import Device
from flawline.runtime.gpu.engine_cache import EngineOptions, cache_path, engines_folder, write_engine
from flawline.runtime.gpu.tensorrt_engines import Say, build_engine, kept_engine, key_of


def write_engine_file(
    bundle: Bundle,
    out: Path | None,
    *,
    batch: int,
    options: EngineOptions,
    say: Say,
) -> Path:
    """Builds the engine of a bundle on this device and writes it.

    Args:
        bundle: In the precision that is wanted.
        out: File to make or replace. None for its place in the cache, where an engine that was built from the same, for the
            same and with the same options stays.
        batch: Most frames that are scored at once.
        options: What shapes the engine besides.
        say: Takes each line that tells what is being done.

    Returns:
        Where the engine is.

    Raises:
        MissingExtraError: There is no driver, or TensorRT or PyCUDA is not installed.
        DeviceError: The driver is too old, or there is no GPU.
        InputError: The bundle is of a classifier, the file cannot be written there, TensorRT does not compute in this
            precision, or an option is not what the device has.
        EngineError: TensorRT refuses the network.
        ResourceError: The disk is full.
    """
    if isinstance(bundle.manifest, ClassifierManifest):
        raise InputError(
            f"{bundle.path} is of a classifier, which runs on a CPU; expected a bundle of another detector"
        )
    if out is not None and (out.is_dir() or not out.parent.is_dir() or not os.access(out.parent, os.W_OK)):
        raise InputError(f"{out}: expected the name of a file, in a folder that exists and can be written to")
    # First of all: without a driver, TensorRT ends the process.
    device = Device()
    key = key_of(bundle, device, batch)
    path = cache_path(key) if out is None else out
    if out is None:
        files.make_folder(engines_folder())
        kept = kept_engine(key, say=say)
        if kept is not None and kept.options == options:
            say("it is there already")
            return path
    with device.current("building an engine"):
        engine = build_engine(bundle, key, options, say=say)
    write_engine(path, key, engine)
    return path
