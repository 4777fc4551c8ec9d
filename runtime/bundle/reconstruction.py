"""The manifest of a reconstruction detector: what differs from an image of good products rebuilt from it is anomalous."""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from flawline.runtime.bundle.base import Manifest
from flawline.runtime.bundle.fields import Count, NotNegative, Text
from flawline.runtime.errors import InputError
from flawline.runtime.map_kinds import MapKind


def score_tensor(kind: MapKind) -> str:
    """Name of the tensor with the scores of the calibration images by that map."""
    return f"calibration_scores.{kind.replace('-', '_')}"


class MapThreshold(msgspec.Struct, frozen=True, kw_only=True):
    """What goes with one kind of map."""

    score: NotNegative
    """The score from which a frame is rejected."""


class Reconstruction(msgspec.Struct, frozen=True, kw_only=True):
    """How images are rebuilt, and the maps that are made of that."""

    kind: Literal["pca", "autoencoder"]
    architecture: Text
    """`pca`, or the name of the autoencoder's network."""
    components: Count
    """Principal components, or values of the bottleneck."""
    maps: Annotated[dict[MapKind, MapThreshold], Meta(min_length=1)]
    """The kinds of map that the bundle offers."""
    map: MapKind
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


class ReconstructionManifest(Manifest, frozen=True, kw_only=True, tag_field="detector", tag="reconstruction"):
    """The whole of manifest.json for a reconstruction detector."""

    reconstruction: Reconstruction

    @property
    def output_channels(self) -> Sequence[int]:
        """Channels of each output of the network: those of the image, and one of a saliency map."""
        return (self.input.channels, 1)[: len(self.network.outputs)]

    @property
    def score_tensor(self) -> str:
        """Name of the tensor with the scores of the calibration images by the map in use."""
        return score_tensor(self.reconstruction.map)

    def with_map(self, kind: MapKind) -> "ReconstructionManifest":
        """The same detector with another of its kinds of map.

        Raises:
            InputError: It does not offer that kind.
        """
        offered = self.reconstruction.maps
        if kind not in offered:
            raise InputError(f"the bundle offers no map '{kind}'; expected {' or '.join(offered)}")
        return msgspec.structs.replace(
            self,
            reconstruction=msgspec.structs.replace(self.reconstruction, map=kind),
            threshold=msgspec.structs.replace(self.threshold, score=offered[kind].score),
        )
