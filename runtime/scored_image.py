"""What `flawline score --json` prints of an image."""

from pathlib import Path
from typing import Literal

import msgspec

from flawline.runtime.detector import Result
from flawline.runtime.regions import Region


class ScoredImage(msgspec.Struct, frozen=True):
    """The verdict on one image file, one JSON object.

    Attributes:
        image: Path as given.
        score: Maximum of the anomaly map.
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
