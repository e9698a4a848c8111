"""Recipes, one for each command: the Python API."""
