"""Reconstruction: rounding of weights and steps of activations are learned block by block, on few images.

A block is fitted to what it returns in the float network (BRECQ: Li et al., ICLR 2021, arXiv 2102.05426). Whether a
weight is rounded up or down is learned (AdaRound: Nagel et al., ICML 2020, arXiv 2004.10568), while activations are
left float at random (QDrop: Wei et al., ICLR 2022, arXiv 2203.05740).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from nayer_cli.activations import hooked
from nayer_cli.machine.distributed import Group
from nayer_cli.quant.blocks import blocks
from nayer_cli.quant.graph import QuantizedLayer
from nayer_cli.quant.quantizers import ActivationQuantizer, Quantizer, unrounded

LOW, HIGH = -0.1, 1.1
"""The limits γ and ζ to which the rectified sigmoid is stretched (AdaRound, eq. 23)."""
BETA = (20.0, 2.0)
"""The exponent of the regularizer, from the first of its steps to the last (AdaRound, eq. 24)."""
WARMUP = 0.2
"""Part of the steps in which nothing pulls roundings to 0 or 1."""
KEPT_FLOAT = 0.5
"""Probability that an activation is not rounded (QDrop, section 4)."""
CHUNK = 16
"""Images that pass a block at once where nothing is learned."""


@dataclass(frozen=True)
class Recipe:
    """The number of steps in which a block is fitted, and its learning rates."""

    steps: int = 500
    batch: int = 16
    lr: float = 0.02
    """Learning rate of Adam on the roundings V."""
    lr_scale: float = 1e-3
    """Learning rate of Adam on the steps of activations, as a share of each step."""
    regularizer: float = 0.5
    """Weight of mean(1 − |2h − 1|^β), beside an error of 1 at the start."""


class SoftRounding(nn.Module):
    """ŵ = s · clamp(⌊w / s⌋ + h(V), low, high), with h(V) = clamp(σ(V) (ζ − γ) + γ, 0, 1) (AdaRound, eq. 22–23)."""

    def __init__(self, quantizer: Quantizer, weight: Tensor) -> None:
        super().__init__()
        steps = weight.detach().float() / quantizer.step().detach()
        self.low, self.high = quantizer.low, quantizer.high
        self.scale, self.floor = quantizer.step().detach(), steps.floor()
        self.v = nn.Parameter(torch.logit((steps - self.floor - LOW) / (HIGH - LOW)))

    def share(self) -> Tensor:
        """Return h(V): 0 rounds down, 1 rounds up."""
        return (self.v.sigmoid() * (HIGH - LOW) + LOW).clamp(0, 1)

    def forward(self, weight: Tensor) -> Tensor:
        """Return ŵ; of the weight only its floor matters."""
        return (self.floor + self.share()).clamp(self.low, self.high) * self.scale

    @torch.no_grad()
    def hard(self) -> Tensor:
        """Return ŵ with all roundings decided."""
        return (self.floor + (self.share() > 0.5)).clamp(self.low, self.high) * self.scale


def reconstruct(
    network: fx.GraphModule,
    images: Tensor,
    generator: torch.Generator,
    recipe: Recipe | None = None,
    group: Group | None = None,
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> list[tuple[float, float]]:
    """Fit all blocks of a calibrated network one after another; its weights are then on their grids.

    Args:
        network: as `calibrate` left it; it is changed.
        images: normalized `[N, C, H, W]`, on the network's device.
        generator: draws batches and what stays float; on the network's device.
        recipe: how long and how fast.
        group: processes, each with its own images, which learn the same.
        tell: called after each block, with how many are done, of how many.

    Returns:
        For each block its squared error before and after, as a part of what it returns.

    """
    recipe, group = recipe or Recipe(), group or Group()
    network.eval()
    found = list(blocks(network))
    exact, rounded, errors = images, images, []
    for done, block in enumerate(found, 1):
        with unrounded(block):
            target = _pass(block, exact)
        before = _error(_pass(block, rounded), target)
        if any(isinstance(module, QuantizedLayer) for module in block.modules()):
            _fit(block, _Lesson(exact, rounded, target, generator), recipe, group)
        exact, rounded = target, _pass(block, rounded)
        errors.append((before, _error(rounded, target)))
        tell(done, len(found))
    return errors


@dataclass(frozen=True)
class _Lesson:
    """Inputs of a block and its target, `[N, …]` each: the float input, the rounded one, the float output."""

    exact: Tensor
    rounded: Tensor
    target: Tensor
    generator: torch.Generator

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Return inputs, partly float (QDrop), and targets of some images."""
        device = self.exact.device
        some = torch.randint(len(self.exact), (count,), generator=self.generator, device=device)
        return self.drop(self.rounded[some], self.exact[some]), self.target[some]

    def drop(self, rounded: Tensor, exact: Tensor) -> Tensor:
        """Keep each value float with probability `KEPT_FLOAT`."""
        uniform = torch.rand(exact.shape, generator=self.generator, device=exact.device)
        return torch.where(uniform < KEPT_FLOAT, exact, rounded)


def _fit(block: fx.GraphModule, lesson: _Lesson, recipe: Recipe, group: Group) -> None:
    """Learn the roundings and steps of one block, and bake the roundings into its weights."""
    layers = [module for module in block.modules() if isinstance(module, QuantizedLayer)]
    grids = [module for module in block.modules() if isinstance(module, ActivationQuantizer)]
    soft = [SoftRounding(layer.quantizer, layer.layer.weight) for layer in layers]
    learned: list[dict[str, object]] = [{"params": [one.v for one in soft], "lr": recipe.lr}]
    learned += [{"params": [grid.scale], "lr": recipe.lr_scale * float(grid.step().detach())} for grid in grids]
    optimizer = torch.optim.Adam(learned)
    parameters = [parameter for part in optimizer.param_groups for parameter in part["params"]]
    unit = None
    with _learning(block, lesson, layers, grids, soft):
        for step in range(recipe.steps):
            inputs, target = lesson.draw(recipe.batch)
            error = (block(inputs) - target).square().mean()
            unit = error.detach().clamp_min(1e-12) if unit is None else unit  # the error at the start
            loss = error / unit + recipe.regularizer * _undecided(soft, step / recipe.steps)
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = torch.zeros_like(parameter) if gradient is None else gradient
            group.average([parameter.grad for parameter in parameters if parameter.grad is not None])
            optimizer.step()
    for layer, one in zip(layers, soft, strict=True):
        layer.layer.weight.data.copy_(one.hard())
    for parameter in parameters:
        parameter.grad = None


def _undecided(soft: Sequence[SoftRounding], done: float) -> Tensor | float:
    """Return the mean of 1 − |2h − 1|^β over all weights (AdaRound, eq. 24), β falling as a cosine."""
    if done < WARMUP:
        return 0.0
    part = (done - WARMUP) / (1 - WARMUP)
    beta = BETA[1] + 0.5 * (BETA[0] - BETA[1]) * (1 + torch.cos(torch.tensor(torch.pi * part)).item())
    total = torch.stack([(1 - (2 * one.share() - 1).abs().pow(beta)).sum() for one in soft]).sum()
    return total / sum(one.v.numel() for one in soft)


@contextmanager
def _learning(
    block: nn.Module,
    lesson: _Lesson,
    layers: Sequence[QuantizedLayer],
    grids: Sequence[ActivationQuantizer],
    soft: Sequence[SoftRounding],
) -> Iterator[None]:
    """Within it weights are rounded softly, and activations sometimes not at all."""
    hard = [layer.quantizer for layer in layers]
    hooks = [grid.register_forward_hook(lambda _, given, result: lesson.drop(result, given[0])) for grid in grids]
    for layer, one in zip(layers, soft, strict=True):
        layer.quantizer = one  # type: ignore[assignment]
    try:
        with hooked(hooks):
            yield
    finally:
        for layer, quantizer in zip(layers, hard, strict=True):
            layer.quantizer = quantizer


@torch.no_grad()
def _pass(block: nn.Module, inputs: Tensor) -> Tensor:
    return torch.cat([block(some) for some in inputs.split(CHUNK)])


def _error(found: Tensor, target: Tensor) -> float:
    return float((found - target).square().mean() / target.square().mean().clamp_min(1e-12))
