"""What a device could do at best, computed from its data sheet: bytes over bandwidth, operations over rate."""
