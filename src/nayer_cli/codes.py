"""The noisy layer: where the randomness of NAYER's images comes from."""

import torch
from torch import Tensor, nn


class NoisyLayer(nn.Module):
    """BatchNorm, then one freshly drawn linear layer for each group of K images (NAYER §3.3, "K-to-1").

    A batch of B class embeddings in class order is split into groups of K rows; group i goes through its own linear
    layer W_i, so that the same class gives another code in every group. `renew` draws all layers anew.

    Args:
        embedding_size: E, length of a class embedding.
        code_size: r, length of a code.
        batch: B, rows per forward.
        classes: K, rows per group.
        batch_norm: whether embeddings pass a BatchNorm first; it removes what all class names have in common.

    """

    def __init__(self, embedding_size: int, code_size: int, batch: int, classes: int, batch_norm: bool = True) -> None:
        super().__init__()
        self.group = min(classes, batch)
        self.groups = -(-batch // self.group)
        self.norm = nn.BatchNorm1d(embedding_size) if batch_norm else nn.Identity()
        # [groups, E, r]: all groups are one batched product instead of a loop of linear layers.
        self.weight = nn.Parameter(torch.zeros(self.groups, embedding_size, code_size))
        self.bias = nn.Parameter(torch.zeros(self.groups, 1, code_size))
        # Drawn anew in every round, they are no state: checkpoints stay small and fit any number of processes.
        self.register_state_dict_post_hook(_forget_linear)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_keep_linear)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def renew(self, generator: torch.Generator) -> None:
        """Draw the linear layers from N(0, 1) with zero bias; the BatchNorm stays."""
        self.weight.normal_(generator=generator)
        self.bias.zero_()

    def forward(self, embeddings: Tensor) -> Tensor:
        """Map embeddings `[B, E]` in class order to codes `[B, r]`."""
        normed = self.norm(embeddings)
        missing = self.groups * self.group - normed.shape[0]
        grouped = nn.functional.pad(normed, (0, 0, 0, missing)).view(self.groups, self.group, -1)
        return torch.baddbmm(self.bias, grouped, self.weight).flatten(0, 1)[: normed.shape[0]]


def _forget_linear(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    for name in ("weight", "bias"):
        del state[prefix + name]


def _keep_linear(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    for name in ("weight", "bias"):
        state.setdefault(prefix + name, getattr(module, name).detach())
