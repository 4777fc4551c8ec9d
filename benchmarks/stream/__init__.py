"""How wide and how fast a web a machine keeps up with."""
