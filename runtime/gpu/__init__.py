"""The detector on an NVIDIA GPU: one stream, everything allocated at start, nothing between upload and score on the host."""
