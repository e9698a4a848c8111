"""Image generators, one a file."""
