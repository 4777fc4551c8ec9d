"""A reconstruction by torch, where there is no TensorRT: principal components, and the saliency of their error."""

import numpy as np
import numpy.typing as npt
import torch

from flawline.benchmarks.gpu.torch_engine import TorchEngine


def rebuild(frames: torch.Tensor, mean: torch.Tensor, basis: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Reconstructions in grey levels and saliencies of images of 0 to 1, with an orthonormal basis B.

    The reconstruction is mean + B^T B (frame - mean). The residual r = (frame - reconstruction) / 255 is at right angles to
    B, so that the slope of mean(r^2) by each of the n pixels is 2 / n r.

    Args:
        frames: uint8 (B, channels, height, width).
        mean: float32 (n,).
        basis: float32 (k, n).

    Returns:
        float32 (B, channels, height, width), and (B, 1, height, width): the steepest of the channels.
    """
    centred = frames.flatten(1).float() - mean
    projected = centred @ basis.T @ basis
    slopes = (2 / len(mean) / 255) * (centred - projected).abs().reshape(frames.shape)
    return (projected + mean).reshape(frames.shape), slopes.amax(1, keepdim=True)


def components(shape: tuple[int, int, int], count: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """A mean, float32 (n,), and an orthonormal basis, float32 (count, n), for images of a shape; random."""
    generator = np.random.default_rng(0)
    values = int(np.prod(shape))
    basis, _ = np.linalg.qr(generator.standard_normal((values, count)))
    return generator.uniform(50, 200, values).astype(np.float32), np.ascontiguousarray(basis.T, np.float32)


def engine_of(base: type[TorchEngine]) -> type[TorchEngine]:
    """The engine, on what `base` works on."""

    class Engine(base):  # type: ignore[valid-type, misc]
        def __init__(
            self,
            shape: tuple[int, int, int],
            count: int,
            batch: int,
            input_address: int,
            output_addresses: tuple[int, ...],
            *,
            of_saliency: bool,
            capturable: bool,
        ) -> None:
            self._pool = None
            self._prepare()
            self.name = "torch fp32"
            self.input, self.outputs, self.capturable = input_address, output_addresses, capturable
            channels, height, width = shape
            self._frames = self._tensor(input_address, (batch, *shape), np.uint8)
            (address,), depth = output_addresses, 1 if of_saliency else channels
            self._maps = [self._tensor(address, (batch, depth, height, width), np.float32)]
            mean, basis = (torch.tensor(array, device=self.device) for array in components(shape, count))
            self._network = lambda frames: [rebuild(frames, mean, basis)[of_saliency]]
            self._runs = 1 if self.device == "cpu" else 5

    return Engine
