"""Measure the steps that images take, and the difference of the images of a class (NAYER, Table 4)."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nayer_cli.activations import Penultimate
from nayer_cli.bank import MemoryBank
from nayer_cli.evaluate import evaluating
from nayer_cli.machine.distributed import Group
from nayer_cli.runs import documents
from nayer_cli.runs.pictures import newest_of_each

OF_CLASS, IN_ALL = 100, 2000
"""Images that are compared, at most."""


class Differences(NamedTuple):
    """Means over classes of means over all pairs of images of a class; None where no class has a pair."""

    features: float | None
    """1 − cosine of the teacher's features."""
    pixels: float | None
    """Root mean squared difference of the pixels, in [0, 1]."""


class Diversity:
    """Measures the images of a bank.

    Args:
        teacher: whose penultimate features count; without one, or where it has none, pixels alone are compared.
        device: where the teacher is.
        group: the processes that share the run; the result is the mean of theirs.
        batch_size: images that the teacher is asked for at once.

    """

    def __init__(self, teacher: nn.Module | None, device: torch.device, group: Group, batch_size: int) -> None:
        self.teacher, self.device, self.group, self.batch_size = teacher, device, group, batch_size
        self._with_features = Penultimate(teacher) if teacher else None

    def __call__(self, bank: MemoryBank, round_size: int) -> documents.Diversity:
        """Compare the newest images of each class, and those of the newest round, which has `round_size` images.

        A bank that forgets in which order images came tells nothing of rounds.
        """
        each = max(2, min(OF_CLASS, IN_ALL // max(len(bank.labels[: len(bank)].unique()), 1)))
        newest = newest_of_each(bank, each).to(bank.device) if len(bank) else bank.newest(0)
        of_round = bank.newest(round_size if bank.policy == "fifo" else 0)
        across, within = (self._of_all(self._compare(bank, slots)) for slots in (newest, of_round))
        return {
            "images": len(newest),
            "features": across.features,
            "features_round": within.features,
            "pixels": across.pixels,
            "pixels_round": within.pixels,
        }

    def _compare(self, bank: MemoryBank, slots: Tensor) -> Differences:
        if not len(slots):
            return Differences(None, None)
        images, labels = bank.take(slots, self.device)
        features = self._features(images)
        return compare(images.cpu(), labels.cpu(), None if features is None else features.cpu())

    def _features(self, images: Tensor) -> Tensor | None:
        """Return the teacher's features `[N, D]`, on the device."""
        if self.teacher is None or self._with_features is None:
            return None
        with evaluating(self.teacher):
            found = [self._with_features(self.teacher, part)[1] for part in images.split(self.batch_size)]
        return None if found[0] is None else torch.cat([each for each in found if each is not None])

    def _of_all(self, own: Differences) -> Differences:
        return Differences(*(_mean(values) for values in zip(*self.group.collect(own), strict=True)))


def compare(images: Tensor, labels: Tensor, features: Tensor | None) -> Differences:
    """Compare the images `[N, C, H, W]` of each of the `labels` `[N]`, and features `[N, D]` if there are some."""
    classes = list(_classes(labels))
    return Differences(
        _mean([_angle(features[rows]) for rows in classes]) if features is not None else None,
        _mean([_distance(images[rows]) for rows in classes]),
    )


def _classes(labels: Tensor) -> Iterator[Tensor]:
    """Yield the rows of each class that has two or more."""
    for label in labels.unique():
        rows = (labels == label).nonzero().squeeze(1)
        if len(rows) > 1:
            yield rows


def _angle(features: Tensor) -> float:
    """Mean of 1 − cosine over all pairs of rows `[N, D]`, N at least 2."""
    # 1 − cosine is half the squared distance of two directions, so its mean over all pairs is their variance. That does
    # not change with the origin, and seen from one of them equal rows give exactly 0.
    directions = F.normalize(features.double(), dim=1)
    return float((directions - directions[0]).var(0).sum())


def _distance(images: Tensor) -> float:
    """Mean root mean squared difference over all pairs of images `[N, C, H, W]`, N at least 2."""
    flat = images.flatten(1).double()
    return float(torch.pdist(flat).mean()) / math.sqrt(flat.shape[1])


def _mean(values: Sequence[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return sum(found) / len(found) if found else None


def synthesis(records: Sequence[dict[str, Any]]) -> documents.Synthesis:
    """Sum up what the records of a run's epochs say of it."""
    phases = {phase: [r for r in records if r["phase"] == phase] for phase in ("warm-up", "student")}
    found = {phase: _convergence([r["convergence"] for r in of if "convergence" in r]) for phase, of in phases.items()}
    measured = [r["diversity"] for r in records if "diversity" in r]
    return {
        "convergence": {phase: value for phase, value in found.items() if value},
        "diversity": measured[-1] if measured else None,
    }


def _convergence(epochs: Sequence[documents.Convergence]) -> documents.Convergence | None:
    """Average over the rounds of several epochs."""
    rounds = sum(epoch["rounds"] for epoch in epochs)
    if not rounds:
        return None
    reached = sum(epoch["rounds"] * epoch["share"] for epoch in epochs)
    steps = sum(epoch["rounds"] * epoch["share"] * (epoch["steps"] or 0) for epoch in epochs)
    return {
        "rounds": rounds,
        "share": reached / rounds,
        "steps": steps / reached if reached else None,
        "bounded": sum(epoch["rounds"] * epoch["bounded"] for epoch in epochs) / rounds,
    }
