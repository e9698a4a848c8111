"""Image generators, one in each file."""
