"""What papers measure, with our detectors."""
