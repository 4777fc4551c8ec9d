"""The manifest of a classifier that says when an image is of none of its classes."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from flawline.runtime.bundle.base import ManifestOfKinds, Variant
from flawline.runtime.bundle.fields import Count, MapThreshold, NotNegative, Text
from flawline.runtime.bundle.padim import Gaussian, Projection
from flawline.runtime.map_kinds import ScoreKind
from flawline.runtime.precisions import Precision


class Classifier(msgspec.Struct, frozen=True, kw_only=True):
    """What the network tells apart, how it was trained, and the scores that are made of it."""

    classes: Annotated[list[Text], Meta(min_length=2, max_length=1 << 16)]
    """Names, in the order of the logits."""
    percentile: Annotated[float, Meta(gt=0, lt=100)]
    """Of the Mahalanobis distances of a class's training images: its threshold, one of `class_thresholds`."""
    scores: dict[ScoreKind, MapThreshold]
    """`mahalanobis`, and `head` where there is a second head."""
    score: ScoreKind
    """The one that is made unless another is asked for."""
    loss: Text | None
    """What the network was trained with; null for one from an ONNX file, as are weight and epochs."""
    center_weight: NotNegative | None
    """Lambda, the weight of the center loss (Wen and others, 2016)."""
    epochs: Count | None
    best_epoch: Count | None
    """The epoch whose weights were kept, from 1 on."""
    head_images: Count | None
    """Images of no class that the second head was trained with."""


class ClassifierVariant(Variant, frozen=True, kw_only=True):
    """A further precision of a classifier."""

    gaussian: Gaussian
    scores: dict[ScoreKind, MapThreshold]
    """In place of `classifier.scores`."""


class ClassifierManifest(ManifestOfKinds, frozen=True, kw_only=True, tag_field="detector", tag="classifier"):
    """The whole of manifest.json for a classifier with a Gaussian per class of its deep features."""

    kind_key: ClassVar[str] = "classifier.score"
    kinds_key: ClassVar[str] = "classifier.scores"

    projection: Projection
    gaussian: Gaussian
    classifier: Classifier
    variants: dict[Precision, ClassifierVariant] = msgspec.field(default_factory=dict)

    @property
    def output_channels(self) -> Sequence[int]:
        """Channels of each output of the network: deep features, logits, and the probability of the second head."""
        return (self.projection.dimension, len(self.classifier.classes), 1)[: len(self.network.outputs)]

    @property
    def has_head(self) -> bool:
        """Whether the network has a second head."""
        return "head" in self.classifier.scores

    def _fields_of(self, variant: Variant) -> dict[str, Any]:
        fields = super()._fields_of(variant)
        scores = fields.pop("scores")
        return fields | {"classifier": msgspec.structs.replace(self.classifier, scores=scores)}
