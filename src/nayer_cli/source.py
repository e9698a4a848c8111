"""The contract of image data, for plug-ins."""

from nayer_cli.images.source import Source

__all__ = ["Source"]
