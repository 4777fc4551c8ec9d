"""Networks defined in torch, with published weights."""

from flawline.detectors.registry import NETWORKS, NetworkDescription, build

__all__ = ["NETWORKS", "NetworkDescription", "build"]
