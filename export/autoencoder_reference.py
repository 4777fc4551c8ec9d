"""What the gate holds an exported autoencoder to: the network as it was trained, in torch, in float64."""

import copy

import numpy as np
import torch
from torch import Tensor

from flawline.detectors.autoencoder import Autoencoder
from flawline.export.reconstruction_parity import Doubles, Frame, Reference


def reference_of(network: Autoencoder) -> Reference:
    """A trained autoencoder in float64: its batch normalisation is not folded, and its gradients are torch's own.

    Args:
        network: Trained; left as it is.
    """
    exact = copy.deepcopy(network).cpu().double().eval().requires_grad_(False)

    def reconstruct(images: Frame) -> Doubles:
        return np.asarray(255 * exact(_unit(images)).numpy(), np.float64)

    def saliency(images: Frame) -> Doubles:
        x = _unit(images).requires_grad_()
        # Equations 2 and 3 of Feeney and others, 2021. The images of a batch do not reach each other's losses.
        (x - exact(x)).square().mean(dim=(1, 2, 3)).sum().backward()
        if x.grad is None:
            raise RuntimeError("torch gave no gradient by the image")
        return np.asarray(x.grad.abs().amax(dim=1).numpy(), np.float64)

    return Reference("torch in float64", reconstruct, saliency)


def _unit(images: Frame) -> Tensor:
    """Images, uint8 (N, height, width) or (N, height, width, 3), as planes from 0 to 1."""
    planes = images.reshape(*images.shape[:3], -1).transpose(0, 3, 1, 2)
    return torch.from_numpy(planes.astype(np.float64) / 255)
