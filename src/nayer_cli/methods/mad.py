"""MAD: the student also learns from a slow average of the generator (Do et al., NeurIPS 2022, arXiv 2209.10359).

So it does not forget what the generator has left behind. No code was released: the idea is the paper's, the losses are
re-derived, and most numbers are ours.
"""

import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nayer_cli import losses, method
from nayer_cli.bank import MemoryBank
from nayer_cli.config import setting
from nayer_cli.critic import Judgement
from nayer_cli.generator import Generator
from nayer_cli.live import LiveGenerator
from nayer_cli.method import Batch, LoopState, Parts, StudentLoss, SynthBatch
from nayer_cli.synthesis import draw_labels, unnoticed, weigh

MANY_CLASSES = 200
"""More classes than this ask for a conditional generator: smaller data sets do without (paper)."""


@dataclass(frozen=True)
class Config:
    """Settings of MAD; α is the paper's, and the other defaults are ours."""

    name: str = setting("mad", "the method")
    lr_g: float = setting(1e-3, "learning rate of the generator's Adam", low=0)
    momentum: float = setting(0.95, "share α that the averaged generator keeps at each of its steps", low=0, high=1)
    code_size: int = setting(256, "length of the latent code", low=1)
    width: int = setting(64, "channels of the generator at full size", low=1)
    generator: str = setting(
        "tapered", "tapered, shallow, deep, auto, or a dotted path", plugin="generators", words=("auto",)
    )
    conditional: str = setting(
        "auto",
        "whether codes are drawn for classes; auto: with more than 200 classes",
        choices=("auto", "on", "off"),
    )
    adv: float = setting(1.0, "weight of the disagreement with the student", low=0)
    bound: float = setting(0.0, "divergence δ that is large enough for an image; 0: ln K for K classes", low=0)
    bn: float = setting(1.0, "weight of the BatchNorm statistics term", low=0)
    ce: float = setting(1.0, "weight of the cross-entropy to the drawn classes, or to the teacher's own", low=0)
    norm: float = setting(0.01, "weight of the length of class embeddings above √code_size", low=0)
    tv: float = setting(1e-3, "weight of the total variation, for a teacher without BatchNorm", low=0)
    now: float = setting(1.0, "weight λ₀ of the student's loss on images of the generator", low=0)
    past: float = setting(1.0, "weight λ₁ of the student's loss on images of the averaged generator", low=0)
    separate: bool = setting(False, "show the student the two kinds of images in separate batches")


class Method(method.Method):
    """Live and adversarial: one generator step, then student steps on fresh images of two generators; no bank."""

    uses_names = method.COUNT
    lends = ("generator.", "averaged.", "classes", "averaged_classes")

    def __init__(self, config: Config, parts: Parts) -> None:
        super().__init__(parts)
        self.config, self.batch = config, parts.batch_size
        count, device = len(parts.pool), parts.pool.device
        is_conditional = count > MANY_CLASSES if config.conditional == "auto" else config.conditional == "on"
        with parts.making("classes"):
            start = torch.randn(count if is_conditional else 0, config.code_size)
        self.classes = nn.Parameter(start.to(device))
        self.generator = LiveGenerator(
            parts,
            config,
            betas=(0.5, 0.999),
            also=[self.classes] if is_conditional else [],
        )
        # The averaged generator G̃ begins as the generator.
        self.averaged: Generator = deepcopy(self.generator.network).requires_grad_(False)
        self.register_buffer("averaged_classes", self.classes.detach().clone())
        self._bound = config.bound or math.log(count)

    averaged_classes: Tensor

    def synthesize(self, student: nn.Module, state: LoopState) -> SynthBatch:
        """One generator step on adv · ADV + bn · BN + ce · CE + norm · NORM; then the average follows."""
        labels = self._labels(self.batch)
        images = self.generator(self._codes(self.batch, self.classes, labels))
        judgement = self.parts.critic.judge(images)
        terms = self._prior(images, judgement, labels)
        if self.config.adv and not state.warming_up:
            terms["adv"] = losses.bounded_adversarial_kl(judgement.logits, student(images), self._bound)
        skipped = self.generator.step(weigh(self.config, terms))
        self._average()
        labels = judgement.logits.argmax(1) if labels is None else labels
        return SynthBatch.of_step(images, labels, terms, skipped)

    def replay(self, bank: MemoryBank, steps: int) -> Iterator[Batch]:
        """Yield batches [x; x̃]: as many images of the averaged generator as of the generator, from new codes."""
        for _ in range(steps):
            images = self._fresh(self.generator.network, self.classes)
            if self.config.past:
                images = torch.cat([images, self._fresh(self.averaged, self.averaged_classes)])
            yield Batch(images, torch.full((len(images),), -1, device=images.device))

    def student_loss(self, student: nn.Module, batch: Batch) -> StudentLoss:
        """Return λ₀ KL(t ‖ s) on x + λ₁ KL(t ‖ s) on x̃."""
        names = ("now", "past") if self.config.past else ("now",)
        t = self.parts.critic.logits(batch.images)
        seen = batch.images.chunk(len(names)) if self.config.separate else [batch.images]
        s = torch.cat([student(images) for images in seen])
        pairs = zip(names, t.chunk(len(names)), s.chunk(len(names)), strict=True)
        terms = {name: losses.distillation_kl(mine, other, 1.0) for name, mine, other in pairs}
        return StudentLoss(weigh(self.config, terms), terms)

    def _prior(self, images: Tensor, judgement: Judgement, labels: Tensor | None) -> dict[str, Tensor]:
        """Unweighted losses that keep images plausible, independent of the student."""
        t = judgement.logits
        terms = {"ce": losses.one_hot(t) if labels is None else losses.cross_entropy(t, labels)}
        terms |= self.parts.prior(images, judgement.statistics, self.parts.critic.distance)
        if labels is not None:
            length = F.embedding(labels, self.classes).norm(dim=1) / math.sqrt(self.config.code_size)
            terms["norm"] = F.relu(length - 1).square().mean()
        return terms

    def _labels(self, count: int) -> Tensor | None:
        """Draw classes, in order, for a conditional generator."""
        if not len(self.classes):
            return None
        return draw_labels(count, len(self.classes), self.parts.rng["labels"])

    def _codes(self, count: int, classes: Tensor, labels: Tensor | None) -> Tensor:
        """Draw codes z, or z + e_y for labels y: the sum, which the paper prefers to cat."""
        codes = self.generator.codes(count)
        return codes if labels is None else codes + F.embedding(labels, classes)

    @torch.no_grad()
    def _fresh(self, network: Generator, classes: Tensor) -> Tensor:
        """Draw a batch of images for the student, from new codes; running statistics do not notice."""
        with unnoticed(network):
            return self.parts.draw(network, self._codes(self.batch, classes, self._labels(self.batch)))

    @torch.no_grad()
    def _average(self) -> None:
        """Let the averaged generator follow: θ̃ ← α θ̃ + (1 − α) θ."""
        own, network = [*self.averaged.parameters(), self.averaged_classes], self.generator.network
        torch._foreach_lerp_(own, [*network.parameters(), self.classes], 1 - self.config.momentum)
        # A mean of two networks' running statistics would describe neither.
        for mine, other in zip(self.averaged.buffers(), network.buffers(), strict=True):
            mine.copy_(other)
