"""CIFAR-10 (Krizhevsky 2009): class names in torchvision's order."""

from nayer_cli.images.dataset import DatasetFacts
from nayer_cli.types import ImageShape, Normalization

FACTS = DatasetFacts(
    names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    shape=ImageShape(3, 32, 32),
    normalization=Normalization((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
)
