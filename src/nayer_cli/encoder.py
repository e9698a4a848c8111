"""The contract of a text encoder, for plug-ins."""

from nayer_cli.lte.encoder import Encoder

__all__ = ["Encoder"]
