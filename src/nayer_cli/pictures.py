"""Pictures decoded and fitted, by the name it had before: new code imports `nayer_cli.images.pictures`."""

from nayer_cli.images.pictures import decode, fit

__all__ = ["decode", "fit"]
