"""Measurements of speed and size, one subject a module; `overhead.py` is the command that makes them."""
