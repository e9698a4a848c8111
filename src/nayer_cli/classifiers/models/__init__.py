"""Our classifier families. Importing this package registers each of them in timm's own registry."""

from nayer_cli import plugins

for _family in plugins.own("models"):
    plugins.load("models", _family)
