"""What a detector is worth and what it costs: accuracy, latency, bytes, and reports of them."""
