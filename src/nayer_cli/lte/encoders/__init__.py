"""Text encoders, one in each file."""
