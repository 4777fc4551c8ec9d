"""PaDiM on a GPU: Mahalanobis distances of the feature maps, and their smoothing."""

from flawline.runtime.bundle.manifest import PadimManifest
from flawline.runtime.gpu.buffers import Counter, Memory
from flawline.runtime.gpu.scoring import Addresses, Calls
from flawline.runtime.kernels import Gaussians, packed_size, padded_rows
from flawline.runtime.kernels.cuda.calls import Call, map_distances
from flawline.runtime.kernels.cuda.image_calls import smooth


class PadimScoring:
    """See `Scoring`.

    Args:
        manifest: Of the bundle.
        gaussians: Statistics of the good images.
    """

    def __init__(self, manifest: PadimManifest, gaussians: Gaussians) -> None:
        self.manifest = manifest
        self._gaussians = gaussians

    @property
    def subject(self) -> str:
        """See `Scoring.subject`."""
        return f"Gaussians of {self._gaussians.dimension} dimensions"

    def prepare(self, memory: Memory, addresses: Addresses, batch: int) -> Calls:
        """See `Scoring.prepare`."""
        manifest = self.manifest
        outputs = [(output.height, output.width) for output in manifest.network.outputs]
        size = (manifest.map.height, manifest.map.width)
        distances = map_distances(
            self._gaussians, outputs, size, batch, memory.upload, upsampling=manifest.map.upsampling
        )
        smoothing = smooth(size, batch, manifest.map.sigma, memory.upload)
        distances.job["source"]["maps"]["data"][: len(outputs)] = addresses.outputs
        between = memory.allocate(4 * batch * manifest.positions)
        distances.job["work"]["distances"] = smoothing.job["maps"] = between
        smoothing.job["out"], smoothing.job["scores"] = addresses.maps, addresses.scores

        def calls(count: int) -> tuple[Call, ...]:
            job = distances.job.copy()
            job["work"]["frames"] = count
            return distances._replace(job=job), smoothing.of_frames(count)

        return calls

    def remedy(self, missing_bytes: int, batch: int) -> str:
        """See `Scoring.remedy`: the dimension that would fit."""
        dimension = self._gaussians.dimension
        growing = self._growing_bytes(batch, dimension)
        fits = [d for d in range(1, dimension) if growing - self._growing_bytes(batch, d) >= missing_bytes]
        if fits:
            return f"fit with --dim {fits[-1]} or less"
        return "no dimension fits: use a smaller batch, or --tie global"

    def _growing_bytes(self, batch: int, dimension: int) -> int:
        """What grows with the dimension: factors, means and feature maps."""
        counter, gaussians = Counter(), self._gaussians
        components = gaussians.count * gaussians.components
        rank = None if gaussians.rank is None else min(gaussians.rank, dimension)
        counter.allocate(components * packed_size(dimension, rank) * gaussians.factors.itemsize)
        if gaussians.row_scales is not None:
            counter.allocate(components * padded_rows(dimension, rank) * gaussians.row_scales.itemsize)
        counter.allocate(components * dimension * gaussians.means.itemsize)
        for output in self.manifest.network.outputs:
            counter.allocate(4 * batch * dimension * output.height * output.width)
        return counter.bytes
