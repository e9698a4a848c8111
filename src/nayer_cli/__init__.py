"""Small or low-bit copies of image classifiers, made without their training data."""

__version__ = "0.1.0"
