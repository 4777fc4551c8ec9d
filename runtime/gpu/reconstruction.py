"""Reconstruction detectors on a GPU: the error of each frame's reconstruction, or the saliency that its network gives."""

import numpy as np

from flawline.runtime.bundle.manifest import ReconstructionManifest
from flawline.runtime.gpu.buffers import Memory
from flawline.runtime.gpu.network import of_map
from flawline.runtime.gpu.scoring import Addresses, Calls
from flawline.runtime.kernels.cuda.calls import Call
from flawline.runtime.kernels.cuda.image_calls import error_parts, proximal_error, saliency
from flawline.runtime.kernels.cuda.image_jobs import PART
from flawline.runtime.map_kinds import SALIENCIES


class ReconstructionScoring:
    """See `Scoring`; the kinds of map are those of `flawline.runtime.reconstruction_scorer.ReconstructionScorer`.

    Args:
        manifest: Of the bundle.

    Attributes:
        manifest: The same, with the output of the network that the map is made of.
    """

    def __init__(self, manifest: ReconstructionManifest) -> None:
        self.manifest = of_map(manifest)

    @property
    def subject(self) -> str:
        """See `Scoring.subject`."""
        return f"reconstructions of {self.manifest.input.height} x {self.manifest.input.width} px"

    def prepare(self, memory: Memory, addresses: Addresses, batch: int) -> Calls:
        """See `Scoring.prepare`."""
        of_saliency = self.manifest.reconstruction.map in SALIENCIES
        call = self._saliency(addresses, batch) if of_saliency else self._error(memory, addresses, batch)

        def calls(count: int) -> tuple[Call, ...]:
            return (call.of_frames(count),)

        return calls

    def remedy(self, missing_bytes: int, batch: int) -> str:
        """See `Scoring.remedy`."""
        return "use a smaller batch, or fit on smaller images" if batch > 1 else "fit on smaller images"

    def _error(self, memory: Memory, addresses: Addresses, batch: int) -> Call:
        frame, facts = self.manifest.input, self.manifest.reconstruction
        size = (frame.height, frame.width)
        call = proximal_error(
            size,
            batch,
            self.manifest.map.sigma if facts.map == "pse" else 0.0,
            np.uint8,
            memory.upload,
            channels=frame.channels,
            planar=frame.layout == "nchw",
            normalised=facts.normalised,
        )
        job = call.job
        job["image"], job["reconstruction"] = addresses.image, addresses.outputs[0]
        job["map"], job["maxima"] = addresses.maps, addresses.scores
        job["means"] = memory.allocate(4 * batch)
        job["parts"] = memory.allocate(batch * error_parts(size) * PART.itemsize)
        job["finished"] = memory.upload(np.zeros(batch, np.uint32))
        return call

    def _saliency(self, addresses: Addresses, batch: int) -> Call:
        size, kind = (self.manifest.map.height, self.manifest.map.width), self.manifest.reconstruction.map
        call = saliency(size, batch, squared=kind == "saliency-squared")
        call.job["saliency"], call.job["map"], call.job["scores"] = (
            addresses.outputs[0],
            addresses.maps,
            addresses.scores,
        )
        return call
