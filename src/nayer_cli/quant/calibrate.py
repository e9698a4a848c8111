"""The first scales of a quantized network: those that round its weights and activations with the least error."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, fx, nn

from nayer_cli.activations import hooked
from nayer_cli.errors import RunFailed
from nayer_cli.machine.distributed import Group
from nayer_cli.quant.graph import QuantizedLayer, limit_weights
from nayer_cli.quant.quantizers import SMALLEST_SCALE, ActivationQuantizer, Quantizer, unrounded

RATIOS = torch.linspace(1.0, 0.15, 69).tolist()
"""Clipping at these parts of the largest absolute value is tried; few bits want small ones."""
SAMPLE = 2**15
"""Values that are looked at of each tensor and batch."""
MOST_WORK = 2**30
"""Weights of a layer times ratios; of larger layers only some weights of each channel are looked at."""


@torch.no_grad()
def calibrate(
    network: fx.GraphModule, batches: Iterable[Tensor], group: Group, *, clip: bool = True, limit: bool = False
) -> None:
    """Choose the scales of all quantizers of `network`; images pass through the float network, in evaluation mode.

    Args:
        network: as `quantize` returned it.
        batches: normalized images `[B, C, H, W]` on the network's device.
        group: processes, each with its own images; all get the mean of their scales.
        clip: minimize the mean squared error; otherwise nothing is clipped.
        limit: whether weights have limits, which steps of activations that never learn widen (`limit_weights`).

    Raises:
        RunFailed: there are no images, or what the network computes is not finite.

    """
    scales = {quantizer: _scale_of(quantizer, *seen, clip) for quantizer, seen in _collect(network, batches).items()}
    group.average(list(scales.values()))
    for quantizer, scale in scales.items():
        quantizer.calibrate(scale)
    if limit:
        limit_weights(network)
    calibrate_weights(network, clip=clip)


@torch.no_grad()
def calibrate_weights(network: nn.Module, *, clip: bool = True) -> None:
    """Choose the scale of each output channel of each quantized layer."""
    for layer in network.modules():
        if isinstance(layer, QuantizedLayer):
            rows = layer.layer.weight.detach().flatten(1).float()
            some = rows[:, _spread(rows.shape[1], MOST_WORK // (len(rows) * len(RATIOS)), rows.device)]
            scale = best_scale(some, rows.abs().amax(1, keepdim=True), layer.quantizer, clip)
            layer.quantizer.calibrate(scale.view_as(layer.quantizer.scale))


def best_scale(
    rows: Tensor, largest: Tensor, quantizer: Quantizer, clip: bool = True, shares: Tensor | None = None
) -> Tensor:
    """Return for each row of values the scale `[R, 1]` with the least squared error.

    Args:
        rows: `[R, N]`.
        largest: absolute values `[R, 1]` that the longest step reaches.
        quantizer: whose integers and steps are possible.
        clip: whether shorter steps are tried.
        shares: `[N]`, how often each value occurs; all alike if left out.

    """
    best = (largest / quantizer.high).clamp_min(SMALLEST_SCALE)
    if not clip:
        return best
    least = torch.full_like(best, torch.inf)
    tried = best.new_zeros(())
    for scale in [quantizer.possible(best * ratio) for ratio in RATIOS]:
        if torch.equal(scale, tried):
            continue  # there are few powers of two
        tried = scale
        rounded = (rows / scale).round_().clamp_(quantizer.low, quantizer.high).mul_(scale)
        squares = rounded.sub_(rows).square_()
        error = (squares if shares is None else squares.mul_(shares)).sum(1, keepdim=True)
        best = torch.where(error < least, scale, best)
        least = torch.minimum(error, least)
    return best


@torch.no_grad()
def recalibrate_statistics(network: nn.Module, batches: Iterable[Tensor], group: Group) -> None:
    """Measure the running statistics of all BatchNorm layers again, as plain means over `batches`.

    Args:
        network: in any mode; it gets back the one it had.
        batches: normalized images.
        group: processes, each with its own images.

    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [(norm, norm.momentum) for norm in norms]
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean
        norm.training = True
    for images in batches:
        network(images)
    for norm, momentum in before:
        norm.momentum = momentum
    for module, mode in modes:
        module.training = mode
    group.average_statistics(network)


def _collect(network: nn.Module, batches: Iterable[Tensor]) -> dict[Quantizer, tuple[Tensor, Tensor]]:
    """Return for each activation quantizer some of the values that reach it, and their largest absolute value."""
    seen: dict[Quantizer, list[Tensor]] = {}
    largest: dict[Quantizer, list[Tensor]] = {}

    def see(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, Quantizer)
        values = inputs[0].detach().float().flatten()
        seen.setdefault(module, []).append(values[_spread(len(values), SAMPLE, values.device)])
        largest.setdefault(module, []).append(values.abs().amax())

    grids = [module for module in network.modules() if isinstance(module, ActivationQuantizer)]
    with hooked([grid.register_forward_pre_hook(see) for grid in grids]), _evaluated(network):
        for images in batches:
            network(images)
    if not seen:
        raise RunFailed("there are no images to calibrate with", hint="make some first: --set schedule.warmup_epochs=1")
    return {one: (torch.cat(seen[one]), torch.stack(largest[one]).amax()) for one in seen}


def _spread(count: int, most: int, device: torch.device) -> Tensor:
    """Return at most `most` of the indices below `count`, at random: a stride could meet one column alone."""
    if count <= most:
        return torch.arange(count, device=device)
    return torch.randint(count, (most,), generator=torch.Generator().manual_seed(0)).to(device)


def _scale_of(quantizer: Quantizer, values: Tensor, largest: Tensor, clip: bool) -> Tensor:
    if not bool(largest.isfinite()):
        raise RunFailed(
            "what the network computes from the calibration images is not finite",
            hint="check the model with nayer eval, or choose another --method",
        )
    return best_scale(values[None], largest.view(1, 1), quantizer, clip).view(())


@contextmanager
def _evaluated(network: nn.Module) -> Iterator[None]:
    """Within the block the network is in evaluation mode and does not round."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with unrounded(network):
            yield
    finally:
        for module, value in modes:
            module.training = value
