"""Torch to ONNX, the projection folded in, parity, and the command that makes a bundle."""
