"""Classifiers: from a name, a folder or a file to a network with all that one must know to use it."""
