"""The base of a family of networks, for plug-ins."""

from nayer_cli.classifiers.models._network import Network, register

__all__ = ["Network", "register"]
