"""Studies: many short runs of one recipe, what is measured of each, and their tables."""
