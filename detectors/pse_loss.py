"""Proximally Sensitive Error as a loss that networks are trained with."""

import torch
from torch.nn import functional

from flawline.runtime.errors import InputError
from flawline.runtime.kernels.pse import proximity_taps

# Up to this side, products with band matrices are faster than convolutions with one channel, whose cost in torch is that of
# the pixels more than that of the taps; a product's is that of the side.
_LONGEST_PRODUCT_PX = 512


class PSELoss(torch.nn.Module):
    """Mean over a batch of the Proximally Sensitive Error (Gudi and others, 2022), equations 3 and 4.

    The same definition as `flawline.runtime.kernels.proximally_sensitive_error`: residuals are 0 outside the image, each
    channel is filtered by itself, and the mean is over channels too. At sigma 0 it is the mean squared error. It is
    differentiable in both arguments, any number of times, and computed in their dtype on their device.

    Args:
        sigma: Standard deviation in pixels, 0 to `MOST_SIGMA_PX`.
        normalised: Whether the taps are scaled to sum 1; else equation 4.

    Raises:
        InputError: sigma is out of its range.
    """

    taps: torch.Tensor

    def __init__(self, sigma: float, *, normalised: bool = True) -> None:
        super().__init__()
        self.sigma = sigma
        self.normalised = normalised
        taps = torch.from_numpy(proximity_taps(sigma, normalised=normalised))
        # Follows the module to a device, but belongs to no checkpoint: sigma says it all.
        self.register_buffer("taps", taps, persistent=False)

    def forward(self, reconstruction: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """The loss.

        Args:
            reconstruction: (B, channels, height, width), floating point.
            image: The same shape.

        Returns:
            A scalar, in squared units of the image.

        Raises:
            InputError: Another number of axes, shapes that differ, or nothing to compare.
        """
        if reconstruction.ndim != 4 or not reconstruction.numel():
            raise InputError(
                f"reconstruction: received {tuple(reconstruction.shape)}, "
                "expected (B, channels, height, width), none of them 0"
            )
        if image.shape != reconstruction.shape:
            raise InputError(
                f"image: received {tuple(image.shape)}, expected {tuple(reconstruction.shape)} like the reconstruction"
            )
        residual = image - reconstruction
        return self._filtered(residual, self.taps.to(residual)).square().mean()

    @staticmethod
    def _filtered(residual: torch.Tensor, taps: torch.Tensor) -> torch.Tensor:
        height, width = residual.shape[2:]
        if len(taps) == 1:
            return residual * taps.square()
        if max(height, width) <= _LONGEST_PRODUCT_PX:
            return band_matrix(taps, height) @ residual @ band_matrix(taps, width)
        planes, radius = residual.reshape(-1, 1, height, width), len(taps) // 2
        down = functional.conv2d(planes, taps.reshape(1, 1, -1, 1), padding=(radius, 0))
        return functional.conv2d(down, taps.reshape(1, 1, 1, -1), padding=(0, radius))

    def extra_repr(self) -> str:
        """What it was made with."""
        return f"sigma={self.sigma}, normalised={self.normalised}"


def band_matrix(taps: torch.Tensor, size: int) -> torch.Tensor:
    """The matrix whose product with a signal is the signal filtered, 0 outside: a Toeplitz matrix, symmetric as the taps are.

    Args:
        taps: (2 radius + 1,), symmetric.
        size: Values of the signal.

    Returns:
        (size, size), of the taps' dtype on their device.
    """
    position = torch.arange(size, device=taps.device)
    tap = position[:, None] - position + len(taps) // 2
    within = (tap >= 0) & (tap < len(taps))
    return torch.where(within, taps[tap.clamp(0, len(taps) - 1)], 0)
