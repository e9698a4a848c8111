"""Comparisons: many runs from one file, and one table of them. Only `work` imports torch, when it runs something."""
