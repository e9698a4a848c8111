"""CMI: images that differ from all images before (Fang et al., IJCAI 2021, arXiv 2105.08584)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nayer_cli import losses, method
from nayer_cli.activations import Staged, Stages
from nayer_cli.augment import ResizedCrop
from nayer_cli.config import setting
from nayer_cli.critic import Critic, Judgement
from nayer_cli.descent import RoundParameter
from nayer_cli.errors import InputError
from nayer_cli.generator import Generator, new_generator, redraw_all
from nayer_cli.method import LoopState, Parts, SynthBatch
from nayer_cli.synthesis import Best, draw_labels, weigh

WIDEST = 4096
"""Channels of all BatchNorm layers up to which `features = "auto"` compares all of them."""


@dataclass(frozen=True)
class Config:
    """Settings of CMI; the defaults are those of the paper's pipeline."""

    name: str = setting("cmi", "the method")
    batch: int = setting(256, "images per round", low=2)
    g_steps: int = setting(200, "steps on generator and codes per round", low=1)
    lr_g: float = setting(1e-3, "learning rate of generator, codes and head", low=0)
    ce: float = setting(0.5, "weight of the cross-entropy to the drawn classes", low=0)
    bn: float = setting(1.0, "weight of the BatchNorm statistics term", low=0)
    adv: float = setting(0.5, "weight of the adversarial term, where teacher and student agree", low=0)
    cr: float = setting(
        0.8, "weight of the contrast with earlier images; 0 turns off everything that belongs to it", low=0
    )
    tv: float = setting(1e-3, "weight of the total variation, for a teacher without BatchNorm", low=0)
    tau: float = setting(0.1, "temperature τ of the contrast", above=0)
    features: str = setting(
        "auto",
        "which features are contrasted; bn: inputs of all BatchNorm layers, stages: the last activations of each"
        " resolution",
        choices=("auto", "bn", "stages"),
    )
    head_size: int = setting(256, "length of the head's output", low=1)
    queue: int = setting(40960, "number of earlier images whose features are remembered", low=1)
    negatives: int = setting(4096, "how many of these are drawn for each step", low=1)
    code_size: int = setting(256, "length of the latent code", low=1)
    width: int = setting(64, "channels of the generator at full size", low=1)
    generator: str = setting("auto", "shallow, deep, auto, or a dotted path", plugin="generators", words=("auto",))
    temperature: float = setting(20.0, "softmax temperature T of the student's loss", above=0)


class Method(method.Method):
    """Each round fits a new generator and its codes for `g_steps`; the best step is kept, and its features queue up."""

    uses_names = method.COUNT
    needs_student = False
    bytes_kept = 24_712  # in the bank, and 2 · 2,704 numbers in the queue, for a WRN-40-2

    def __init__(self, config: Config, parts: Parts) -> None:
        super().__init__(parts)
        self.config = config
        self.temperature, self.batch = config.temperature, config.batch
        device = parts.pool.device
        with parts.making("generator"):
            generator = new_generator(config.generator, config.code_size, parts.shape, config.width)
        self.generator: Generator = generator.to(device).to(memory_format=torch.channels_last)
        self.contrast = Contrast(config, parts) if config.cr else None
        self.store = self.contrast.queue if self.contrast else None

    def synthesize(self, student: nn.Module, state: LoopState) -> SynthBatch:
        """One round (paper, Algorithm 1): L = bn · BN + ce · CE + adv · ADV + cr · CR over generator and codes."""
        config, rng = self.config, self.parts.rng
        redraw_all(self.generator, self.parts.weights("generator"))
        labels = draw_labels(config.batch, len(self.parts.pool), rng["labels"])
        codes = RoundParameter(self.parts.codes(config.batch, config.code_size))
        optimizer = torch.optim.Adam(
            [*self.generator.parameters(), codes], lr=config.lr_g, betas=(0.5, 0.999), fused=True
        )
        if self.contrast:
            self.contrast.join(optimizer)
        descent, best = self.parts.descent(optimizer), Best()
        for _ in self.parts.interruption.steps(config.g_steps):
            images, terms, rows = self._draw(codes, labels, student, adversarial=not state.warming_up)
            loss = weigh(config, terms)
            best.offer(loss, terms, images=images, **rows)
            descent.step(loss)
        if self.contrast:
            self.contrast.leave(optimizer)
        images = best.kept.pop("images")
        return SynthBatch(images, labels, best.losses, descent.skipped, config.g_steps, best.kept or None, best.course)

    def _draw(
        self, codes: Tensor, labels: Tensor, student: nn.Module, adversarial: bool
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Draw images and judge views of them: (images, unweighted losses, features for the queue)."""
        critic = self.parts.critic
        images = self.parts.draw(self.generator, codes)
        seen = self.parts.augment(images, self.parts.rng["augment"])
        if self.contrast:
            judgement, terms, rows = self.contrast(images, seen)
        else:
            judgement, terms, rows = critic.judge(seen), {}, {}
        terms["ce"] = losses.cross_entropy(judgement.logits, labels)
        terms |= self.parts.prior(images, judgement.statistics, critic.distance)
        if adversarial and self.config.adv:
            terms["adv"] = losses.masked_adversarial_kl(judgement.logits, student(seen))
        return images, terms, rows

    def get_extra_state(self) -> dict[str, object]:
        """Moments of the head's Adam, which outlive a round."""
        return {"head": self.contrast.adam.state_dict()} if self.contrast else {}

    def set_extra_state(self, state: dict[str, object]) -> None:
        """Restore what `get_extra_state` returned."""
        if self.contrast:
            self.contrast.adam.load_state_dict(state["head"])  # type: ignore[arg-type]


class Contrast(nn.Module):
    """Term `cr`: a local view of an image is like the global view of it, and like that of no other (paper, eq. 4).

    A head compares what the teacher's layers see of both, averaged over positions. It is trained along, and outlives
    the rounds, as does the queue of the features that kept images had.
    """

    def __init__(self, config: Config, parts: Parts) -> None:
        super().__init__()
        self.config, self.parts = config, parts
        self.view = ResizedCrop(parts.augment.flip)
        self._listen = _listener(parts.critic, config.features)
        with torch.no_grad():
            row = self._listen(parts.critic.teacher, torch.zeros(1, *parts.shape, device=parts.pool.device))[1][0]
        if not len(row):
            raise InputError(
                "the teacher has no layer whose features the term `cr` could contrast: neither BatchNorm nor an "
                "activation function over positions",
                hint="--set method.cr=0",
            )
        self.queue = parts.store(config.queue, local=row, whole=row)
        with parts.making("head"):
            head = nn.Sequential(nn.Linear(len(row), len(row)), nn.ReLU(), nn.Linear(len(row), config.head_size))
        self.head = head.to(row.device)
        self.adam = torch.optim.Adam(self.head.parameters(), lr=config.lr_g, fused=True)

    def join(self, optimizer: torch.optim.Optimizer) -> None:
        """Let a round's optimizer move the head, too, with the moments that its own Adam remembers."""
        optimizer.add_param_group({"params": list(self.head.parameters()), "betas": (0.9, 0.999)})
        optimizer.state.update(self.adam.state)

    def leave(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the moments back after the round."""
        self.adam.state.update({weight: optimizer.state[weight] for weight in self.head.parameters()})

    def forward(self, images: Tensor, seen: Tensor) -> tuple[Judgement, dict[str, Tensor], dict[str, Tensor]]:
        """Judge the global view `seen` of images: (judgement, `cr`, features of both views)."""
        judgement, whole = self._listen(self.parts.critic.judge, seen)
        _, local = self._listen(self.parts.critic.teacher, self.view(images, self.parts.rng["views"]))
        old = self._negatives()
        queries = self._embed(torch.cat([local, old["local"]]))
        with torch.no_grad():
            keys = self._embed(torch.cat([whole, old["whole"]]))
        cr = losses.contrast(queries, keys, len(images), self.config.tau)
        return judgement, {"cr": cr}, {"local": local, "whole": whole}

    def _negatives(self) -> dict[str, Tensor]:
        """Draw pairs of features from the queue, without replacement."""
        rng = self.parts.rng["negatives"]
        drawn = torch.randperm(len(self.queue), generator=rng, device=rng.device)[: self.config.negatives]
        return self.queue.read(drawn)

    def _embed(self, features: Tensor) -> Tensor:
        embedded: Tensor = self.head(features)
        return F.normalize(embedded, dim=1)


def _listener(critic: Critic, features: str) -> Callable[..., tuple[Any, Tensor]]:
    """Let a call of the teacher return its features `[B, D]`, too: means over positions, of layer after layer."""
    channels = len(critic.running.mean)
    if features == "bn" or (features == "auto" and 0 < channels <= WIDEST):
        inputs = critic.listening(lambda layer, x: x)
        return lambda call, images: _pooled(images, *inputs(call, images))
    staged = Staged(critic.teacher)
    return lambda call, images: _pooled(images, *staged(call, images))


def _pooled(images: Tensor, result: object, seen: Stages | list[tuple[nn.Module, Tensor]]) -> tuple[Any, Tensor]:
    means = [activations.float().mean((2, 3)) for _, activations in (seen.items() if isinstance(seen, dict) else seen)]
    return result, torch.cat([images.new_zeros(len(images), 0), *means], dim=1)
