"""The commands `evaluate`, `bench` and `demo`."""
