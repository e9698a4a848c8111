"""A memory that stores no image: a VAE that draws what a generator drew before (PRE-DFKD, Binici et al., AAAI 2022)."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nayer_cli import losses
from nayer_cli.live_settings import VaeSettings
from nayer_cli.method import Parts
from nayer_cli.standard import StandardMaker, start_small, wide_block
from nayer_cli.synthesis import weigh
from nayer_cli.types import ImageShape

KL_WEIGHT = 1e-5
"""Weight of the KL divergence of the VAE's codes from their prior."""


class Encoder(nn.Module):
    """Maps images to mean and log-variance of a code, both `[B, code_size]`."""

    def __init__(self, shape: ImageShape, code_size: int) -> None:
        super().__init__()
        # As many more halvings as bring the image to 32 pixels.
        more = max(0, math.ceil(math.log2(max(shape.height, shape.width) / 32)))
        self.body = nn.Sequential(
            *wide_block(shape.channels, 64),
            *(Halve() for _ in range(more)),
            *wide_block(64, 128),
            Halve(),
            *(nn.Conv2d(128, 128, 3, stride=2, padding=1), nn.BatchNorm2d(128)),
            Halve(),
            *(nn.AdaptiveAvgPool2d(4), nn.Flatten()),
        )
        self.mean, self.log_var = nn.Linear(2048, code_size), nn.Linear(2048, code_size)
        start_small(self)

    def forward(self, normalized: Tensor) -> tuple[Tensor, Tensor]:
        """Encode normalized images `[B, C, H, W]`; each of their columns is brought to length 1 before."""
        hidden = self.body(F.normalize(normalized, dim=2))
        return self.mean(hidden), self.log_var(hidden)


class Halve(nn.Module):
    """Takes every second row and column: nearest-neighbour downsampling, for any size."""

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to half the height and width, rounded up."""
        return x[..., ::2, ::2]


class VariationalMemory(nn.Module):
    """A VAE that learns to draw what a generator draws, and from its own images what it drew before (PRE-DFKD).

    Args:
        parts: of the method.
        config: of the VAE and its steps.
        count: images recalled at a time; with 0 there is no memory.

    """

    loss: Tensor
    """The last one, the same in every process."""

    def __init__(self, parts: Parts, config: VaeSettings, count: int) -> None:
        super().__init__()
        self.parts, self.config, self.count = parts, config, count
        new = StandardMaker(parts.critic.teacher, spectral=False)
        with parts.making("vae"):
            decoder = new(config.generator, config.code_size, parts.shape, config.width)
            encoder = Encoder(parts.shape, config.code_size)
        device = parts.pool.device
        self.decoder = decoder.to(device).to(memory_format=torch.channels_last)
        self.encoder = encoder.to(device).to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(self.parameters(), lr=config.lr_vae, fused=True)
        self.descent = parts.descent(optimizer)
        self.register_buffer("loss", torch.zeros((), device=device))
        self.before = self.done = 0  # student steps of earlier cycles, and of this one

    def start_cycle(self) -> None:
        """Go on to the next cycle."""
        self.before, self.done = self.before + self.done, 0

    def recall(self) -> Tensor:
        """Draw remembered images; running statistics are used, and stay."""
        if not self.count or self.before + self.done < self.config.recall_after:
            return torch.zeros(0, *self.parts.shape, device=self.loss.device)
        self.decoder.eval()
        try:
            return self._infer()[0]
        finally:
            self.decoder.train()

    def learn(self, fresh: Tensor) -> None:
        """Learn half of the fresh images and, after the first cycle, own ones; in the first steps of a cycle."""
        if self.count and self.done < self.config.vae_steps:
            self._learn(fresh[: max(2, len(fresh) // 2)])
        self.done += 1

    def _learn(self, fresh: Tensor) -> None:
        if not self.before:
            return self._step(fresh)
        own, implausible = self._infer()
        return self._step(torch.cat([fresh, own]), implausible if self.config.tune_decoder else None)

    def codes(self) -> Tensor:
        """Draw codes `[count, code_size]`."""
        size, rng = (self.count, self.config.code_size), self.parts.rng["memory"]
        return torch.randn(size, generator=rng, device=self.loss.device)

    def noise(self, like: Tensor) -> Tensor:
        """Draw ε ~ N(0, I)."""
        return torch.randn(like.shape, generator=self.parts.rng["noise"], device=like.device)

    def _infer(self) -> tuple[Tensor, Tensor]:
        """Draw images of codes that took a step towards what the teacher finds plausible.

        Returns them, and how implausible they were before that step.
        """
        codes = self.codes().requires_grad_()
        t = self.parts.critic.answer(self._decode(codes))
        # balance · IE + ce · OH + (var z − 1)² + (mean z)²
        loss = weigh(self.config, {"balance": losses.balance(t, base=10), "ce": losses.one_hot(t)})
        loss = loss + (codes.var(0) - 1).square().mean() + codes.mean(0).square().mean()
        direction = self._direction(loss, codes)
        with torch.no_grad():
            return self._decode(codes - self.config.lr_z * direction), loss

    def _direction(self, loss: Tensor, codes: Tensor) -> Tensor:
        """Return what the first step of Adam follows, g / (|g| + ε); 0 where the gradient is not finite."""
        scale = 2.0**12 if self.parts.precision.is_scaled else 1.0
        (gradient,) = torch.autograd.grad(loss * scale, codes, retain_graph=self.config.tune_decoder)
        return (gradient / (gradient.abs() + 1e-8 * scale)).nan_to_num(0.0)

    def _step(self, images: Tensor, more: Tensor | None = None) -> None:
        """One step on |û − u| + |T(û) − T(u)| + 10⁻⁵ · KL(N(μ, v) ‖ N(0, I)), u in normalized units."""
        teacher = self.parts.critic.teacher
        with self.parts.precision():
            mean, log_var = self.encoder((images - teacher.mean) / teacher.std)
        mean, log_var = mean.float(), log_var.float()
        drawn = self._decode(mean + (0.5 * log_var).exp() * self.noise(mean))
        pixels = ((drawn - images) / teacher.std).abs().mean()
        logits = losses.logit_l1(self.parts.critic.logits(images), self.parts.critic.answer(drawn))
        kl = -0.5 * (1 + log_var - mean.square() - log_var.exp()).sum(1).mean()
        loss = pixels + logits + KL_WEIGHT * kl
        self.descent.step(loss if more is None else loss + more)
        self._agree(loss.detach())

    def _agree(self, loss: Tensor) -> None:
        """Give all processes the same running statistics and loss, since a run may be saved after any step."""
        self.loss = torch.where(loss.isfinite(), loss, self.loss)
        self.parts.group.average([self.loss])
        self.parts.group.average_statistics(self)

    def _decode(self, codes: Tensor) -> Tensor:
        return self.parts.draw(self.decoder, codes)

    def get_extra_state(self) -> dict[str, Any]:
        """Adam's moments, and where the cycle stands."""
        return {"descent": self.descent.state_dict(), "before": self.before, "done": self.done}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_extra_state` returned."""
        self.descent.load_state_dict(state["descent"])
        self.before, self.done = state["before"], state["done"]
