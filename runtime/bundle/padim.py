"""The manifest of a PaDiM detector: Gaussians of the features of a network."""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from flawline.runtime.bundle.base import Manifest, Variant
from flawline.runtime.bundle.fields import Count, NotNegative, Seed
from flawline.runtime.precisions import Precision


class Projection(msgspec.Struct, frozen=True, kw_only=True):
    """How `input_dimension` feature channels became `dimension`."""

    kind: Literal["gaussian", "orthogonal", "sparse", "select", "none"]
    seed: Seed
    input_dimension: Count
    dimension: Annotated[int, Meta(ge=1, le=1 << 14)]
    generator: Literal["philox4x64"]


class Gaussian(msgspec.Struct, frozen=True, kw_only=True):
    """The model of normal."""

    tie: Literal["position", "column", "global", "class"]
    """What shares a Gaussian; `class` for one per class of a classifier, and for that alone."""
    lane_px: Count | None = None
    """Pixels across the web whose columns share a model; null for a model of each column's own."""
    count: Count
    components: Annotated[int, Meta(ge=1, le=1024)]
    epsilon: NotNegative
    epsilon_relative: bool
    """True if epsilon counts in mean feature variances, False if it is added as it is."""
    shrinkage: str | float | None
    factors: Literal["fp16", "fp32", "int8"]
    form: Literal["triangle", "woodbury"] = "triangle"
    """Whether factors are W = L^-1, or R of `rank` rows: distance^2 = scale^2 (||z||^2 - ||R z||^2)."""
    rank: Count | None = None
    """Rows of R; null for triangles."""
    block_rows: Literal[8]


class PadimVariant(Variant, frozen=True, kw_only=True):
    """A further precision of a PaDiM detector."""

    gaussian: Gaussian


class PadimManifest(Manifest, frozen=True, kw_only=True, tag_field="detector", tag="padim"):
    """The whole of manifest.json for a PaDiM detector (Defard and others, 2020)."""

    projection: Projection
    gaussian: Gaussian
    variants: dict[Precision, PadimVariant] = msgspec.field(default_factory=dict)

    @property
    def output_channels(self) -> Sequence[int]:
        """Channels of each output of the network: the dimension, for each scale."""
        return [self.projection.dimension] * len(self.network.outputs)

    def _how_to_add(self, precision: Precision) -> str:
        if "fp32" in self.precisions:
            return f", or add it with `flawline export BUNDLE --precision {precision} --images GOOD_DIR --out BUNDLE`"
        return ", or fit the product again, in fp32, from which others are made"
