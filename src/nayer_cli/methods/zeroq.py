"""ZeroQ: distill images whose statistics are those of BatchNorm (Cai et al., CVPR 2020, arXiv 2001.00281)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nayer_cli import method
from nayer_cli.config import setting
from nayer_cli.descent import RoundParameter
from nayer_cli.errors import InputError
from nayer_cli.losses import cross_entropy
from nayer_cli.method import LoopState, Parts, SynthBatch
from nayer_cli.synthesis import draw_labels

EPSILON = 1e-6
"""Under the square root of each variance."""


@dataclass(frozen=True)
class Config:
    """Settings of ZeroQ; the defaults are those of the released code."""

    name: str = setting("zeroq", "the method")
    batch: int = setting(64, "images per round", low=2)
    g_steps: int = setting(500, "steps on the pixels per round", low=1)
    lr_g: float = setting(0.5, "learning rate of Adam on the pixels, in normalized units", low=0)
    ce: float = setting(
        0.0, "weight of the cross-entropy to drawn classes, the only term that reaches the last layers", low=0
    )
    lr_min: float = setting(1e-4, "lowest learning rate that plateaus lead to", low=0)
    patience: int = setting(100, "steps without progress after which the learning rate falls to a tenth", low=1)
    temperature: float = setting(20.0, "softmax temperature T of the student's loss", above=0)


class Method(method.Method):
    """Each round starts from noise. Unless `ce` is set no class is asked for: the teacher says afterwards what it sees.

    Raises:
        InputError: the teacher has no BatchNorm statistics; there is nothing else that images could follow.

    """

    uses_names = method.NOTHING
    needs_student = False

    def __init__(self, config: Config, parts: Parts) -> None:
        super().__init__(parts)
        if not parts.critic.has_statistics:
            raise InputError(
                "zeroq makes images from the statistics of BatchNorm layers, but the teacher has none",
                hint="choose another --method, such as deepinv",
            )
        self.config = config
        self._distances = parts.critic.listening(lambda layer, x: sample_distance(x, *_moments(layer)))
        self.temperature, self.batch = config.temperature, config.batch

    def synthesize(self, student: nn.Module, state: LoopState) -> SynthBatch:
        """One round: a batch of distilled images."""
        config, parts = self.config, self.parts
        mean, std = parts.critic.teacher.mean, parts.critic.teacher.std
        pixels = RoundParameter(parts.pixels(config.batch))
        rate = PlateauRate(config.lr_g, config.lr_min, config.patience, mean.device)
        descent = parts.descent(_adam(pixels, rate))
        drawn = draw_labels(config.batch, len(parts.pool), parts.rng["labels"]) if config.ce else None
        for _ in parts.interruption.steps(config.g_steps):
            terms = self._judge(pixels, mean, std, drawn)
            loss = terms["bn"] + terms["input"] + config.ce * terms.get("ce", 0.0)
            descent.step(loss)
            rate.update(loss)
            _clip(pixels, mean, std)
        images = (pixels.detach() * std + mean).clamp_(0, 1)
        losses = {name: value.detach() for name, value in terms.items()}
        return SynthBatch(images, parts.critic.logits(images).argmax(1), losses, descent.skipped, config.g_steps)

    def _judge(self, pixels: Tensor, mean: Tensor, std: Tensor, drawn: Tensor | None = None) -> dict[str, Tensor]:
        """Distances to what layers' inputs and the pixels themselves should look like in each image."""
        logits, seen = self._distances(self.parts.critic.teacher, pixels * std + mean)
        distances = dict(seen)  # of a layer that runs twice the last time counts
        zero = torch.zeros(pixels.shape[1], device=pixels.device)
        terms = {"bn": torch.stack(list(distances.values())).sum(), "input": sample_distance(pixels, zero, zero + 1)}
        return terms if drawn is None else terms | {"ce": cross_entropy(logits, drawn)}


def sample_distance(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Squared distance of each image's own channel statistics to `mean` and `std` `[C]`, averaged over the batch.

    Args:
        x: activations `[B, C, H, W]`. A single position has no deviation, and none is asked of it.
        mean: what the means over H × W should be.
        std: what the unbiased standard deviations over H × W should be.

    """
    values = x.float().flatten(2)
    distance = (values.mean(2) - mean).square().sum(1)
    if values.shape[2] > 1:
        distance = distance + ((values.var(2) + EPSILON).sqrt() - std).square().sum(1)
    return distance.mean()


class PlateauRate:
    """A learning rate that falls to a tenth when the loss has made no progress for more than `patience` steps.

    What `torch.optim.lr_scheduler.ReduceLROnPlateau` does, without the host ever learning the loss.

    Attributes:
        value: 0-dimensional, on the device; an optimizer reads it there.

    """

    def __init__(self, start: float, least: float, patience: int, device: torch.device) -> None:
        self.value = torch.full((), start, device=device)
        self._least, self._patience = least, patience
        self._best = torch.full((), torch.inf, device=device)
        self._stale = torch.zeros((), device=device)

    @torch.no_grad()
    def update(self, loss: Tensor) -> None:
        """Take note of one step's loss."""
        better = loss < self._best * (1 - 1e-4)
        self._best = torch.where(better, loss, self._best)
        self._stale = torch.where(better, 0.0, self._stale + 1)
        falls = self._stale > self._patience
        self._stale = torch.where(falls, 0.0, self._stale)
        self.value.copy_(torch.where(falls, (self.value / 10).clamp_min(self._least), self.value))


def _adam(pixels: Tensor, rate: PlateauRate) -> torch.optim.Adam:
    """Return an optimizer that reads its rate on the device; its constructor would ask for the number."""
    optimizer = torch.optim.Adam([pixels], fused=True)
    optimizer.param_groups[0]["lr"] = rate.value
    return optimizer


@torch.no_grad()
def _clip(pixels: Tensor, mean: Tensor, std: Tensor) -> None:
    """Move pixels back to where the image is in [0, 1]; done once at the end, it would undo what was matched."""
    pixels.clamp_(-mean / std, (1 - mean) / std)


def _moments(layer: nn.Module) -> tuple[Tensor, Tensor]:
    mean, var = layer.running_mean, layer.running_var
    assert isinstance(mean, Tensor)
    assert isinstance(var, Tensor)
    return mean, (var + EPSILON).sqrt()
