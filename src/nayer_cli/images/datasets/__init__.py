"""Data sets: what is known about each, and those that travel with a dependency."""
