"""Data-free methods, one in each file."""
