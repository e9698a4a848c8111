"""Our networks, by the name that model cards print: importing it registers them with timm."""

from nayer_cli.classifiers import models as models
