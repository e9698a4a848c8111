"""Classifiers, by the name that model cards print."""

from nayer_cli.classifiers.model import (
    Classifier,
    Normalized,
    load_classifier,
    new_classifier,
    new_network,
    save_classifier,
)

__all__ = ["Classifier", "Normalized", "load_classifier", "new_classifier", "new_network", "save_classifier"]
