"""What the network is: HybridBlocks that trace to one Symbol."""
