"""Facts of a data set, for plug-ins."""

from nayer_cli.images.dataset import DatasetFacts

__all__ = ["DatasetFacts"]
