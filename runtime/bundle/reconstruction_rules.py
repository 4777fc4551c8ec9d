"""The rules between the fields of the manifest of a reconstruction detector."""

from flawline.runtime.bundle.reconstruction import Reconstruction, ReconstructionManifest
from flawline.runtime.map_kinds import SALIENCIES


def check(manifest: ReconstructionManifest) -> str | None:
    """The first rule that the manifest breaks, as a message; None if it keeps all of them."""
    return _check_graph(manifest) or _check_training(manifest.reconstruction) or _check_components(manifest)


def _check_graph(manifest: ReconstructionManifest) -> str | None:
    network, frame, fact = manifest.network, manifest.input, manifest.reconstruction
    if manifest.web is not None:
        return "web is there; expected null for a reconstruction detector, which takes frames"
    if manifest.variants:
        return f"variants.{next(iter(manifest.variants))} is there; expected none for a reconstruction detector"
    if network.precision != "fp32":
        return f"network.precision is {network.precision!a}; expected 'fp32' for a reconstruction detector"
    if frame.channels == 3 and frame.layout != "nchw":
        return f"input.layout is {frame.layout!a} for a reconstruction in colour; expected 'nchw'"
    if network.name != fact.architecture:
        return f"network.name is {network.name!a}; expected that of the architecture, {fact.architecture!a}"
    if network.layers != ["reconstruction"] or network.total_stride != 1:
        return (
            f"network.layers {network.layers} of total stride {network.total_stride}; expected ['reconstruction'] and 1"
        )
    names = [output.name for output in network.outputs]
    expected = ["reconstruction", "saliency"] if set(SALIENCIES) & fact.maps.keys() else ["reconstruction"]
    if names != expected:
        return f"network.outputs {names}; expected {expected} for the maps {', '.join(fact.maps)}"
    size = (frame.height, frame.width)
    sizes = {"map": (manifest.map.height, manifest.map.width)}
    sizes |= {f"output {output.name}": (output.height, output.width) for output in network.outputs}
    for name, (height, width) in sizes.items():
        if (height, width) != size:
            return f"{name} of {height} x {width}; expected the input's {size[0]} x {size[1]}"
    if manifest.map.upsampling != "nearest":
        return f"map.upsampling is {manifest.map.upsampling!a}; expected 'nearest' for a reconstruction detector"
    return None


def _check_training(fact: Reconstruction) -> str | None:
    if (fact.kind == "pca") != (fact.architecture == "pca"):
        return f"reconstruction.architecture is {fact.architecture!a} for the kind {fact.kind!a}"
    facts = {"loss": fact.loss, "epochs": fact.epochs, "best_epoch": fact.best_epoch}
    for name, value in facts.items():
        if (value is None) != (fact.kind == "pca"):
            return f"reconstruction.{name} is {'null' if value is None else ascii(value)} for the kind {fact.kind!a}"
    if fact.best_epoch is not None and fact.epochs is not None and fact.best_epoch > fact.epochs:
        return f"reconstruction.best_epoch is {fact.best_epoch}; expected at most the {fact.epochs} epochs"
    return None


def _check_components(manifest: ReconstructionManifest) -> str | None:
    values = manifest.input.height * manifest.input.width * manifest.input.channels
    components = manifest.reconstruction.components
    if components > values:
        return f"reconstruction.components is {components}; expected at most the {values} values of an image"
    return None
