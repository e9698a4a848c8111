"""Classifiers: from a name, a folder or a file to a network with everything needed to use it."""
