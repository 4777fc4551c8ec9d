"""Networks defined in torch: those with published weights, and autoencoders that are trained on good images."""

from flawline.detectors.autoencoders import AUTOENCODERS, AutoencoderDescription, build_autoencoder
from flawline.detectors.registry import NETWORKS, NetworkDescription, build

__all__ = ["AUTOENCODERS", "NETWORKS", "AutoencoderDescription", "NetworkDescription", "build", "build_autoencoder"]
