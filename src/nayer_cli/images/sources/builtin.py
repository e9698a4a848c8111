"""A data set that ships with the package, or with a package that it needs."""

from nayer_cli import plugins
from nayer_cli.errors import InputError
from nayer_cli.images import dataset
from nayer_cli.images.source import ArraySource


def recognizes(spec: str) -> bool:
    """Tell whether `spec` is the name of a plug-in in `datasets/`."""
    return spec in plugins.names("datasets")


def open_source(spec: str, split: str) -> ArraySource:
    """Load the images of set `spec`."""
    facts = dataset.find(spec)
    if facts.load is None:
        raise InputError(
            f"the images of '{spec}' do not ship with nayer",
            hint="give a folder, a tar, an .npz, or torch/NAME@ROOT",
        )
    images, labels = facts.load(split)
    return ArraySource(images, labels, facts.class_names)
