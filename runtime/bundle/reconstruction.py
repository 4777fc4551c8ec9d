"""The manifest of a reconstruction detector: what differs from an image of good products rebuilt from it is anomalous."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from flawline.runtime.bundle.base import ManifestOfKinds
from flawline.runtime.bundle.fields import Count, MapThreshold, Text
from flawline.runtime.map_kinds import ReconstructionMapKind


class Reconstruction(msgspec.Struct, frozen=True, kw_only=True):
    """How images are rebuilt, and the maps that are made of that."""

    kind: Literal["pca", "autoencoder"]
    architecture: Text
    """`pca`, or the name of the autoencoder's network."""
    components: Count
    """Principal components, or values of the bottleneck."""
    maps: Annotated[dict[ReconstructionMapKind, MapThreshold], Meta(min_length=1)]
    """The kinds of map that the bundle offers."""
    map: ReconstructionMapKind
    """The one that is made unless another is asked for."""
    normalised: bool
    """Whether the taps of Proximally Sensitive Error are scaled to sum 1."""
    loss: Text | None
    """What the network was trained with; null for principal components, as are the epochs."""
    epochs: Count | None
    best_epoch: Count | None
    """The epoch whose weights were kept, from 1 on."""
    chosen: Text
    """How the components and the map's sigma were chosen."""

    @property
    def title(self) -> str:
        """What images are rebuilt from."""
        if self.kind == "autoencoder":
            return f"a bottleneck of {self.components} value{'s' * (self.components != 1)}"
        return f"{self.components} principal component{'s' * (self.components != 1)}"


class ReconstructionManifest(ManifestOfKinds, frozen=True, kw_only=True, tag_field="detector", tag="reconstruction"):
    """The whole of manifest.json for a reconstruction detector."""

    kind_key: ClassVar[str] = "reconstruction.map"
    kinds_key: ClassVar[str] = "reconstruction.maps"

    reconstruction: Reconstruction

    @property
    def output_channels(self) -> Sequence[int]:
        """Channels of each output of the network: those of the image, and one of a saliency map."""
        return [1 if output.name == "saliency" else self.input.channels for output in self.network.outputs]
