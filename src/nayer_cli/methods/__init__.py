"""Data-free methods, one a file."""
