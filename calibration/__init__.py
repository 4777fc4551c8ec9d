"""What needs good images but no torch: projections, Gaussians, whitening, splits and thresholds."""
