"""The memory planner: which activations of a training graph are computed again instead of kept."""
