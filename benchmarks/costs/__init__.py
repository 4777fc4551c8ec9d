"""What a frame costs: time by stage, processor time, memory, bytes, and how all of it grows with the dimension."""
