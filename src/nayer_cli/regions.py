"""Compare the regions that two networks look at: class activation maps, and Grad-CAM of their stages."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from nayer_cli import losses
from nayer_cli.activations import Staged, Stages, uncompiled

Pair = tuple[Tensor, Tensor]


class Gaze:
    """Lets a network return what it sees in a batch, as `Seen`."""

    def __init__(self, network: nn.Module) -> None:
        self._staged = Staged(network)
        self._layers = [module for module in network.modules() if _matrix(module).ndim == 2]

    def __call__(self, network: nn.Module, images: Tensor) -> "Seen":
        """Call the network; gradients within it stay known for as long as what is returned."""
        with uncompiled():
            logits, stages = self._staged(network, images)
        return Seen(logits, stages, [_matrix(layer) for layer in reversed(self._layers)])

    @torch.no_grad()
    def sizes(self, network: nn.Module, images: Tensor) -> set[tuple[int, int]]:
        """Height and width of its stages."""
        return set(self(network, images).stages)


class Seen:
    """A network's view of a batch.

    Args:
        logits: `[B, K]`.
        stages: its feature maps, by size.
        matrices: `[n, m]` of its layers, the last one first: one of them may be the classifier.

    """

    def __init__(self, logits: Tensor, stages: Stages, matrices: list[Tensor]) -> None:
        self.logits, self.stages, self._matrices = logits, stages, matrices

    def class_maps(self, aim: "Seen") -> Pair | None:
        """Class activation maps `[B, K, h, w]` of the last stage, and those aimed at, which are constant.

        None where the sizes differ, or no matrix leads from the channels of a last stage to the classes.
        """
        mine, theirs = self._class_maps(), aim._class_maps()
        if mine is None or theirs is None or mine.shape != theirs.shape:
            return None
        return mine, theirs.detach()

    def regions(self, aim: "Seen") -> Iterator[Pair]:
        """Grad-CAM maps `[B, h, w]` of the stages of common size, and those aimed at, which are constant.

        Both are of the class that is largest in `aim`.
        """
        chosen, sizes = aim.logits.argmax(1, keepdim=True), [size for size in self.stages if size in aim.stages]
        mine, theirs = (_regions(seen.logits, chosen, [seen.stages[size] for size in sizes]) for seen in (self, aim))
        return zip(mine, (each.detach() for each in theirs), strict=True)

    def _class_maps(self) -> Tensor | None:
        if not self.stages:
            return None
        features = next(reversed(self.stages.values()))
        wanted = self.logits.shape[1], features.shape[1]
        matrix = next((matrix for matrix in self._matrices if matrix.shape == wanted), None)
        return None if matrix is None else losses.class_activation_maps(features, matrix)


def _regions(logits: Tensor, chosen: Tensor, features: list[Tensor]) -> list[Tensor]:
    """Weigh the channels of each of `features` by the gradient of the logits of the `chosen` classes `[B, 1]`."""
    score = logits.gather(1, chosen).sum()
    gradients = torch.autograd.grad(score, features, retain_graph=True, materialize_grads=True)
    return [losses.gradient_activation_map(*pair) for pair in zip(features, gradients, strict=True)]


def _matrix(layer: nn.Module) -> Tensor:
    weight = getattr(layer, "weight", None)
    return weight if isinstance(weight, Tensor) else torch.empty(0)
