"""What `flawline score --json` prints of an image."""

from pathlib import Path
from typing import Literal

import msgspec

from flawline.runtime.bundle import AnyManifest, ClassifierManifest
from flawline.runtime.detector import Result
from flawline.runtime.plain_text import plain
from flawline.runtime.regions import Region


class ScoredImage(msgspec.Struct, frozen=True):
    """The verdict on one image file, one JSON object.

    Attributes:
        image: Path as given.
        score: Maximum of the anomaly map, or the score of a classifier.
        threshold: What the score was compared with.
        p_value: Share of good images that score at least as high, (1 + #) / (n + 1).
        verdict: `good` or `reject`.
        regions: Parts of the image above the threshold, highest peak first.
        engine: Name of the engine that scored the image.
    """

    image: str
    score: float
    threshold: float
    p_value: float
    verdict: Literal["good", "reject"]
    regions: list[Region]
    engine: str

    @classmethod
    def of(cls, path: Path, result: Result) -> "ScoredImage":
        """What a detector said of an image file."""
        return cls(
            image=str(path),
            score=result.score,
            threshold=result.threshold,
            p_value=result.p_value,
            verdict=result.verdict,
            regions=result.regions,
            engine=result.engine,
        )

    def text(self) -> str:
        """One line for people."""
        count = len(self.regions)
        where = f"  {count} region{'s' * (count != 1)}" if count else ""
        return f"{self.verdict:6}  score {self.score:#11.6g}  p {self.p_value:.4f}  {self.image}{where}"


class ClassifiedImage(ScoredImage, frozen=True, rename={"label": "class"}):
    """Likewise by a classifier.

    Attributes:
        label: Class of the largest logit; `class` in JSON.
        probability: Of that class.
        nearest: Class whose Gaussian is nearest, in thresholds of that class.
        distances: Mahalanobis distance to each class.
        head: Probability of being normal by the second head; None without one.
    """

    label: str
    probability: float
    nearest: str
    distances: dict[str, float]
    head: float | None

    def text(self) -> str:
        """One line for people. The region of a rejected image is the image, of which nothing is to be said."""
        verdict = msgspec.structs.replace(self, regions=[])
        return f"{ScoredImage.text(verdict)}  class {plain(self.label)}, probability {self.probability:.3f}"


def describe(path: Path, result: Result, manifest: AnyManifest) -> ScoredImage:
    """What a detector said of an image file.

    Args:
        path: As given.
        result: Of the image.
        manifest: Of the bundle.
    """
    scored, found = ScoredImage.of(path, result), result.classification
    if found is None or not isinstance(manifest, ClassifierManifest):
        return scored
    return ClassifiedImage(
        **msgspec.structs.asdict(scored),
        label=found.label,
        probability=found.probability,
        nearest=found.nearest,
        distances=dict(zip(manifest.classifier.classes, found.distances.tolist(), strict=True)),
        head=found.head,
    )
