"""The network of a bundle as it runs on a GPU: cut to the output that the map in use is made of."""

import msgspec

from flawline.runtime.backends import onnx_outputs
from flawline.runtime.bundle import Bundle
from flawline.runtime.bundle.manifest import AnyManifest, ReconstructionManifest
from flawline.runtime.errors import EngineError
from flawline.runtime.map_kinds import output_of


def of_map(manifest: ReconstructionManifest) -> ReconstructionManifest:
    """The manifest with that output of the network alone that the map in use is made of."""
    name, network = output_of(manifest.reconstruction.map), manifest.network
    outputs = [output for output in network.outputs if output.name == name]
    return msgspec.structs.replace(manifest, network=msgspec.structs.replace(network, outputs=outputs))


def cut_manifest(manifest: AnyManifest) -> AnyManifest:
    """The manifest with the outputs of the network that an engine computes: of a reconstruction that of the map, else all."""
    return of_map(manifest) if isinstance(manifest, ReconstructionManifest) else manifest


def cut_output(manifest: AnyManifest) -> str | None:
    """Name of the output that an engine computes where the network has another; None where it has not."""
    kept = cut_manifest(manifest).network.outputs
    return None if len(kept) == len(manifest.network.outputs) else kept[0].name


def cut_features(bundle: Bundle) -> bytes:
    """The ONNX file of the bundle, in the precision that is wanted, with those outputs.

    Raises:
        EngineError: The file cannot be read.
    """
    output = cut_output(bundle.manifest)
    if output is None:
        return bundle.features
    names = [one.name for one in bundle.manifest.network.outputs]
    try:
        return onnx_outputs.cut(bundle.features, [names.index(output)])
    except ValueError as error:
        raise EngineError(f"TensorRT is not given the feature graph: {error}") from error
