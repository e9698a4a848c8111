"""Codes: the inputs of NAYER's generator. One class each, with one signature (NAYER, Table 4).

E is the length of a class embedding, K the number of classes, r the length of a code, B the rows of a batch.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nayer_cli.descent import RoundParameter


class Codes(nn.Module):
    """Maps class labels `[B]` to codes `[B, r]`.

    A class of codes is made of the LTE pool `[K, E]` in float32, r, and B, the rows per forward.
    """

    pool: Tensor

    def __init__(self, pool: Tensor) -> None:
        super().__init__()
        self.register_buffer("pool", pool.detach().clone(), persistent=False)

    def renew(self, generator: torch.Generator) -> None:
        """Draw again what changes in every round; by default nothing is."""

    def forward(self, labels: Tensor) -> Tensor:
        """Return the codes of `labels`, which are in class order."""
        raise TypeError(f"{type(self).__name__} must define forward")


class OneHot(Codes):
    """W · onehot(y) + b: the class alone, by a layer that is learned (column OH)."""

    def __init__(self, pool: Tensor, size: int, batch: int) -> None:
        super().__init__(pool)
        self.linear = nn.Linear(len(pool), size)

    def forward(self, labels: Tensor) -> Tensor:
        """Return the codes of `labels`."""
        return self.linear.weight.mT[labels] + self.linear.bias


class Noise(Codes):
    """z ~ N(0, I), the same for all steps of a round, or with `fresh` another one in each (column Z)."""

    noise: Tensor

    def __init__(self, pool: Tensor, size: int, batch: int, fresh: bool = False) -> None:
        super().__init__(pool)
        self.fresh = fresh
        self.register_buffer("noise", torch.zeros(batch, size), persistent=False)

    def renew(self, generator: torch.Generator) -> None:
        """Draw z."""
        self._generator = generator
        self.noise.normal_(generator=generator)

    def forward(self, labels: Tensor) -> Tensor:
        """Return z, whatever the labels."""
        if self.fresh:
            self.renew(self._generator)
        return self.noise[: len(labels)].clone()


class Lte(Codes):
    """W · BN(e) + b: the embedding by a layer that is learned (column LTE)."""

    def __init__(self, pool: Tensor, size: int, batch: int) -> None:
        super().__init__(pool)
        self.norm = nn.BatchNorm1d(pool.shape[1])
        self.linear = nn.Linear(pool.shape[1], size)

    def forward(self, labels: Tensor) -> Tensor:
        """Return the codes of `labels`."""
        codes: Tensor = self.linear(self.norm(self.pool[labels]))
        return codes


class Cat(Codes):
    """W · [BN(e); z] + b with z ~ N(0, I), as long as the embedding, drawn in every round (column cat)."""

    def __init__(self, pool: Tensor, size: int, batch: int) -> None:
        super().__init__(pool)
        self.norm = nn.BatchNorm1d(pool.shape[1])
        self.noise = Noise(pool, pool.shape[1], batch)
        self.linear = nn.Linear(2 * pool.shape[1], size)

    def renew(self, generator: torch.Generator) -> None:
        """Draw z."""
        self.noise.renew(generator)

    def forward(self, labels: Tensor) -> Tensor:
        """Return the codes of `labels`."""
        codes: Tensor = self.linear(torch.cat([self.norm(self.pool[labels]), self.noise(labels)], dim=1))
        return codes


class Sum(Codes):
    """W (e + βz) + b with z ~ N(0, I) drawn in every round (column sum).

    The embedding is taken as the encoder gives it: with a BatchNorm before it the noise would drown it at β = 1 alone,
    not as gradually as the paper reports.
    """

    def __init__(self, pool: Tensor, size: int, batch: int, beta: float = 0.1) -> None:
        super().__init__(pool)
        self.beta = beta
        self.noise = Noise(pool, pool.shape[1], batch)
        self.linear = nn.Linear(pool.shape[1], size)

    def renew(self, generator: torch.Generator) -> None:
        """Draw z."""
        self.noise.renew(generator)

    def forward(self, labels: Tensor) -> Tensor:
        """Return the codes of `labels`."""
        codes: Tensor = self.linear(self.pool[labels] + self.beta * self.noise(labels))
        return codes


class Noisy(Codes):
    """The noisy layer: BatchNorm, then one freshly drawn linear layer for each group of images (NAYER §3.3).

    A batch of B class embeddings in class order is split into groups of rows; group i goes through its own linear
    layer W_i, so that the same class gives another code in every group. `renew` draws all layers again.

    Args:
        pool: LTE pool `[K, E]`.
        size: r.
        batch: B.
        group: rows per linear layer; by default K ("K-to-1").
        renewed: whether every round draws the layers again. If not, they are drawn once, and what they learned is kept
            in checkpoints.
        batch_norm: whether embeddings pass a BatchNorm first; it removes what all class names have in common.

    """

    def __init__(
        self,
        pool: Tensor,
        size: int,
        batch: int,
        group: int | None = None,
        renewed: bool = True,
        batch_norm: bool = True,
    ) -> None:
        super().__init__(pool)
        self.group = min(group or len(pool), batch)
        self.groups = -(-batch // self.group)
        self.renewed = renewed
        self.norm = nn.BatchNorm1d(pool.shape[1]) if batch_norm else nn.Identity()
        # [groups, E, r]: all groups are one batched product instead of a loop of linear layers.
        draw, parameter = (torch.zeros, RoundParameter) if renewed else (torch.randn, nn.Parameter)
        self.weight = parameter(draw(self.groups, pool.shape[1], size))
        self.bias = parameter(torch.zeros(self.groups, 1, size))
        if renewed:
            # Drawn anew in every round, they are no state: checkpoints stay small and fit any number of processes.
            self.register_state_dict_post_hook(_forget_linear)  # type: ignore[no-untyped-call]
            self.register_load_state_dict_pre_hook(_keep_linear)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def renew(self, generator: torch.Generator) -> None:
        """Draw the linear layers from N(0, 1) with zero bias; the BatchNorm stays."""
        if self.renewed:
            self.weight.normal_(generator=generator)
            self.bias.zero_()

    def forward(self, labels: Tensor) -> Tensor:
        """Return the codes of `labels`, which are in class order."""
        normed = self.norm(self.pool[labels])
        missing = self.groups * self.group - normed.shape[0]
        grouped = nn.functional.pad(normed, (0, 0, 0, missing)).view(self.groups, self.group, -1)
        return torch.baddbmm(self.bias, grouped, self.weight).flatten(0, 1)[: normed.shape[0]]


CODES: dict[str, Callable[[Tensor, int, int, float], Codes]] = {
    "onehot": lambda pool, size, batch, beta: OneHot(pool, size, batch),
    "noise": lambda pool, size, batch, beta: Noise(pool, size, batch),
    "noise-fresh": lambda pool, size, batch, beta: Noise(pool, size, batch, fresh=True),
    "lte": lambda pool, size, batch, beta: Lte(pool, size, batch),
    "cat": lambda pool, size, batch, beta: Cat(pool, size, batch),
    "sum": lambda pool, size, batch, beta: Sum(pool, size, batch, beta),
    "noisy": lambda pool, size, batch, beta: Noisy(pool, size, batch),
    "noisy-kept": lambda pool, size, batch, beta: Noisy(pool, size, batch, group=batch, renewed=False),
    "noisy-single": lambda pool, size, batch, beta: Noisy(pool, size, batch, group=1),
    "noisy-raw": lambda pool, size, batch, beta: Noisy(pool, size, batch, batch_norm=False),
}
"""Every column of Table 4 by name; β counts for `sum` alone."""


def _forget_linear(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    for name in ("weight", "bias"):
        del state[prefix + name]


def _keep_linear(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    for name in ("weight", "bias"):
        state.setdefault(prefix + name, getattr(module, name).detach())
