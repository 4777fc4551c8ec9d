"""Flawline: image anomaly detectors from good images to a line camera on an edge device."""

__version__ = "0.1.0"
