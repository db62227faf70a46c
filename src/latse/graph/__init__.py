"""How a network's graph is read and rewritten."""
