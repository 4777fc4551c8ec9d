"""Proximally Sensitive Error as a loss that networks are trained with."""

import torch
from torch.nn import functional

from flawline.runtime.errors import InputError
from flawline.runtime.kernels.pse import proximity_taps


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
        planes = residual.reshape(-1, 1, *residual.shape[2:])
        taps, radius = self.taps.to(residual), len(self.taps) // 2
        down = functional.conv2d(planes, taps.reshape(1, 1, -1, 1), padding=(radius, 0))
        filtered = functional.conv2d(down, taps.reshape(1, 1, 1, -1), padding=(0, radius))
        return filtered.square().mean()

    def extra_repr(self) -> str:
        """What it was made with."""
        return f"sigma={self.sigma}, normalised={self.normalised}"
