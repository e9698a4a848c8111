"""Rounds of synthesis outside of a run, until there are enough images."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from nayer_cli.errors import RunFailed
from nayer_cli.method import LoopState, Method, SynthBatch

PATIENCE = 20
"""Rounds in a row that may bring nothing."""
Tell = Callable[[int], None]


class NoStudent(nn.Module):
    """Stands for the student of a method that asks none."""

    def forward(self, images: Tensor) -> Tensor:
        """Refuse to answer."""
        raise RunFailed("the method needs a student, but there is none", hint="choose another --method")


def make(
    method: Method,
    student: nn.Module,
    state: LoopState,
    wanted: Sequence[int] | None,
    total: int,
    tell: Tell = lambda have: None,
) -> tuple[Tensor, Tensor]:
    """Make images until there are `total` that are wanted, or `PATIENCE` rounds in a row brought none.

    A round whose losses are not finite brings nothing, as in a run.

    Args:
        method: makes them.
        student: frozen.
        state: where the loop stands; it goes on.
        wanted: classes that shall share `total` evenly; None takes every image.
        total: how many images.
        tell: called after each round with how many of those wanted there are.

    Returns:
        Images uint8 `[n, C, H, W]` and labels `[n]` on the host, in the order in which they were made.

    """
    images, labels, counts = [], [], torch.zeros(len(method.parts.pool), dtype=torch.long)
    have, idle = 0, 0
    while have < total and idle < PATIENCE:
        state.round += 1
        before, batch = have, method.synthesize(student, state)
        if _is_sound(batch):
            if method.store is not None and batch.rows is not None:
                method.store.push(batch.rows)
            images.append((batch.images.float() * 255).round().to(torch.uint8).cpu())
            labels.append(batch.labels.cpu())
            counts += labels[-1].bincount(minlength=len(counts))
            have = _useful(counts, wanted, total)
        idle = 0 if have > before else idle + 1
        tell(have)
    if not images:
        raise RunFailed(
            f"no image could be made in {PATIENCE} rounds: losses or gradients were not finite",
            hint="lower the learning rate, method.lr_g, or compute with --amp off",
        )
    return torch.cat(images), torch.cat(labels)


def _useful(counts: Tensor, wanted: Sequence[int] | None, total: int) -> int:
    if wanted is None:
        return min(int(counts.sum()), total)
    return int(counts[list(wanted)].clamp(max=-(-total // len(wanted))).sum())


def _is_sound(batch: SynthBatch) -> bool:
    """Say whether the images of a round may be kept: its losses are finite, and a step was taken."""
    finite = torch.stack(list(batch.losses.values())).isfinite().all()
    skipped = torch.zeros_like(finite, dtype=torch.float32) if batch.skipped is None else batch.skipped.float()
    sound, left_out = torch.stack([finite.float(), skipped]).tolist()
    return bool(sound) and left_out != batch.steps
