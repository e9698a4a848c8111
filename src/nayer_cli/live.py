"""A generator of Gaussian codes that lives as long as the run: what adversarial methods without a bank train."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from nayer_cli.generator import Generator, new_generator
from nayer_cli.method import Batch, Parts
from nayer_cli.synthesis import unnoticed
from nayer_cli.types import ImageShape

New = Callable[[str, int, ImageShape, int], Generator]
"""A function that makes a generator, as `new_generator` does."""


class GeneratorSettings(Protocol):
    """The settings that methods with a live generator have in common, by their names in `Config`."""

    @property
    def generator(self) -> str:
        """A name that makes a generator."""

    @property
    def code_size(self) -> int:
        """Length of its codes."""

    @property
    def width(self) -> int:
        """Channels at full size."""

    @property
    def lr_g(self) -> float:
        """Learning rate of Adam."""


class LiveGenerator(nn.Module):
    """Draws images of codes z ~ N(0, I), and takes the steps of its own Adam.

    Args:
        parts: of the method.
        settings: of the generator, and the learning rate of Adam, which lives as long.
        betas: of Adam.
        max_norm: longer gradients are shortened to this.
        also: parameters that Adam trains with the generator, such as embeddings of classes.
        settled: whether the student's images are normalized by running statistics, not by those of their batch.
        new: makes the generator.

    """

    def __init__(
        self,
        parts: Parts,
        settings: GeneratorSettings,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        max_norm: float | None = None,
        also: Iterable[nn.Parameter] = (),
        settled: bool = False,
        new: New = new_generator,
    ) -> None:
        super().__init__()
        self.parts, self.code_size, self.lr, self.settled = parts, settings.code_size, settings.lr_g, settled
        with parts.making("generator"):
            network = new(settings.generator, settings.code_size, parts.shape, settings.width)
        self.network: Generator = network.to(parts.pool.device).to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam([*self.network.parameters(), *also], lr=self.lr, betas=betas, fused=True)
        self.descent = parts.descent(optimizer, max_norm=max_norm)

    def codes(self, count: int) -> Tensor:
        """Draw codes `[count, code_size]`."""
        return self.parts.codes(count, self.code_size)

    def forward(self, codes: Tensor) -> Tensor:
        """Draw an image `[C, H, W]` for each code, in float32."""
        return self.parts.draw(self.network, codes)

    @torch.no_grad()
    def fresh(self, count: int) -> Tensor:
        """Draw `count` images of new codes for the student; running statistics do not notice."""
        self.network.train(not self.settled)
        try:
            with unnoticed(self.network):
                return self.forward(self.codes(count))
        finally:
            self.network.train()

    def replay(self, steps: int) -> Iterator[Batch]:
        """Yield `steps` batches of fresh images; nothing asks for their classes, so the teacher is not asked either."""
        for _ in range(steps):
            images = self.fresh(self.parts.batch_size)
            yield Batch(images, torch.full((len(images),), -1, device=images.device))

    def anneal(self, done: float) -> None:
        """Set the learning rate that a cosine from `lr` to 0 has after a share `done` of the run."""
        for group in self.descent.optimizer.param_groups:
            group["lr"] = self.lr * (1 + math.cos(math.pi * done)) / 2

    def step(self, loss: Tensor) -> Tensor:
        """Take one step down the gradient of `loss`; return how many steps were left out, 0 or 1, on the device."""
        return 1.0 - self.descent.step(loss).float()

    def get_extra_state(self) -> dict[str, object]:
        """Adam's moments, which outlive a round."""
        return self.descent.state_dict()

    def set_extra_state(self, state: dict[str, object]) -> None:
        """Restore what `get_extra_state` returned."""
        self.descent.load_state_dict(state)
