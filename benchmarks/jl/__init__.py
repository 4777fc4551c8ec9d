"""The Johnson-Lindenstrauss projection as a measured curve: what it gains, where it does not, and what it costs."""
