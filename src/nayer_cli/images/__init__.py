"""Labelled images: where they lie, in which order their classes are, and how they are prepared."""
