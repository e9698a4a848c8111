"""The contract of an image generator, and the choice of one by image size."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from nayer_cli import plugins
from nayer_cli.machine.transfer import send
from nayer_cli.types import ImageShape


class Generator(nn.Module):
    """Maps codes `[B, code_size]` to images `[B, C, H, W]` in [0, 1].

    A plug-in in `generators/` defines a subclass called `Generator`, made by `Generator(code_size, shape, width)`.
    """

    stages: tuple[int, ...] = ()
    """Places at which feature maps can be taken and from which `resume` goes on, in order; empty where there are none.
    What a place is, only `draw` and `resume` know."""

    def __init__(self, code_size: int, shape: ImageShape) -> None:
        super().__init__()
        self.code_size = code_size
        self.shape = shape

    def forward(self, codes: Tensor) -> Tensor:
        """Draw one image for each code."""
        raise TypeError(f"{type(self).__name__} must define forward")

    def draw(self, codes: Tensor) -> tuple[list[Tensor], Tensor]:
        """Draw images, and return before them the feature maps `[B, C, h, w]` of all `stages`."""
        raise TypeError(f"{type(self).__name__} must define draw, since it has stages")

    def resume(self, features: Tensor, stage: int, until: int | None = None) -> Tensor:
        """Continue from the feature maps of stage number `stage` to those of stage `until`, or to the images."""
        raise TypeError(f"{type(self).__name__} must define resume, since it has stages")


class Layered(Generator):
    """Linear → `body`, a sequence of layers that a subclass sets; its `stages` are positions in it.

    Args:
        code_size, shape: as of any generator.
        start: shape of what the linear layer gives to `body`.

    """

    body: nn.Sequential

    def __init__(self, code_size: int, shape: ImageShape, start: tuple[int, int, int]) -> None:
        super().__init__(code_size, shape)
        self.start = start
        self.linear = nn.Linear(code_size, prod(start))

    def forward(self, codes: Tensor) -> Tensor:
        """Draw images `[B, C, H, W]` in [0, 1] for codes `[B, code_size]`."""
        images: Tensor = self.body(self._unfold(codes))
        return images

    def draw(self, codes: Tensor) -> tuple[list[Tensor], Tensor]:
        """Draw images, and return before them the feature maps of all stages."""
        features, x = [], self._unfold(codes)
        for position, layer in enumerate(self.body):
            x = layer(x)
            if position in self.stages:
                features.append(x)
        return features, x

    def resume(self, features: Tensor, stage: int, until: int | None = None) -> Tensor:
        """Continue from the feature maps of stage number `stage` to those of stage `until`, or to the images."""
        end = len(self.body) if until is None else self.stages[until] + 1
        result: Tensor = self.body[self.stages[stage] + 1 : end](features)
        return result

    def _unfold(self, codes: Tensor) -> Tensor:
        maps: Tensor = self.linear(codes).unflatten(1, self.start)
        return maps


class Upsampler(Layered):
    """Linear → BN → (↑, conv, BN, LReLU) × n → conv → sigmoid, with the n + 1 `widths` as channels on the way.

    Stages are what the first BatchNorm and each LReLU return.
    """

    def __init__(self, code_size: int, shape: ImageShape, widths: Sequence[int]) -> None:
        super().__init__(code_size, shape, (widths[0], *halved(shape, len(widths) - 1)))
        self.stages = tuple(range(0, 4 * len(widths) - 3, 4))
        layers: list[nn.Module] = [nn.BatchNorm2d(widths[0])]
        for halvings, (inputs, outputs) in zip(reversed(range(len(widths) - 1)), pairwise(widths), strict=True):
            layers += [up_to(shape, halvings), *conv_block(inputs, outputs)]
        self.body = nn.Sequential(*layers, nn.Conv2d(widths[-1], shape.channels, 3, padding=1), nn.Sigmoid())


def new_generator(name: str, code_size: int, shape: ImageShape, width: int) -> Generator:
    """Make a freshly initialized generator; `auto` takes `shallow` up to 64 pixels and `deep` above."""
    if name == "auto":
        name = "shallow" if max(shape.height, shape.width) <= 64 else "deep"
    generator: Generator = plugins.part("generators", name, "Generator")(code_size, shape, width)
    return generator


def up_to(shape: ImageShape, halvings: int) -> nn.Module:
    """Return nearest-neighbour upsampling to `halved(shape, halvings)`, so that any size is reached exactly."""
    return nn.Upsample(size=halved(shape, halvings), mode="nearest")


def halved(shape: ImageShape, times: int) -> tuple[int, int]:
    """Return height and width, halved `times` times and rounded up."""
    return -(-shape.height // 2**times), -(-shape.width // 2**times)


def conv_block(inputs: int, outputs: int) -> list[nn.Module]:
    """3×3 convolution, BatchNorm, LeakyReLU(0.2)."""
    return [
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(0.2, inplace=True),
    ]


def redraw_all(network: nn.Module, rng: torch.Generator) -> None:
    """Start a generator afresh in place, as CMI does: weights from N(0, 0.02²), of BatchNorm N(1, 0.02²), biases 0."""
    for layer in network.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            _redraw(layer, 0.0, rng)
        elif isinstance(layer, nn.BatchNorm2d):
            _redraw(layer, 1.0, rng)


def redraw_first(network: nn.Module, rng: torch.Generator) -> None:
    """Draw the first linear layer and the first BatchNorm anew, both from N(0, 0.02²) with biases 0, as FM does."""
    for kind in (nn.Linear, nn.BatchNorm2d):
        for layer in [module for module in network.modules() if isinstance(module, kind)][:1]:
            _redraw(layer, 0.0, rng)


@torch.no_grad()
def _redraw(layer: nn.Linear | nn.Conv2d | nn.BatchNorm2d, mean: float, rng: torch.Generator) -> None:
    drawn = torch.empty(layer.weight.shape, device=rng.device).normal_(mean, 0.02, generator=rng)
    layer.weight.copy_(send(drawn, layer.weight.device))
    if layer.bias is not None:
        layer.bias.zero_()
