"""Teachers that sometimes say what is no number; which batches they dislike, the bits of the images decide."""

import torch
from torch import Tensor, nn

from nayer_cli.classifiers.model import load_classifier
from nayer_cli.config import ModelConfig


class Moody(nn.Module):
    """The digits teacher, who spoils about one batch in three.

    Args:
        inside: whether the images are spoiled before the teacher sees them, or the logits afterwards.
        value: with what.

    """

    def __init__(self, inside: bool, value: float) -> None:
        super().__init__()
        self.network = load_classifier(ModelConfig(name="builtin:digits")).network
        self.inside, self.value = inside, value

    def forward(self, images: Tensor) -> Tensor:
        mood = images.detach().double().sum() * 1000 % 3 < 1
        factor = torch.where(mood, self.value, 1.0)
        logits: Tensor = self.network(images * factor if self.inside else images)
        return logits if self.inside else logits * factor


def nan_logits() -> nn.Module:
    """Sometimes all logits are NaN."""
    return Moody(inside=False, value=torch.nan)


def infinite_activations() -> nn.Module:
    """Sometimes the first BatchNorm is given infinite numbers."""
    return Moody(inside=True, value=1e38)


def huge_activations() -> nn.Module:
    """Sometimes the first BatchNorm is given numbers whose squares are infinite."""
    return Moody(inside=True, value=1e30)
