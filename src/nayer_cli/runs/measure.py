"""What a student is measured by: labelled images where the user has some, otherwise agreement on held-back ones."""

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from nayer_cli.bank import MemoryBank
from nayer_cli.evaluate import Outcomes, Scores, agreement, measure, scores
from nayer_cli.images.labelled import LabelledImages
from nayer_cli.machine.interruption import Interruption
from nayer_cli.runs.assemble import Machine


class Measure:
    """Measures models on `data`, or by agreement with the teacher on `holdout` where there is no data.

    Args:
        teacher: the reference, mapping images in [0, 1] to logits; None when a network is trained from labels alone.
        data: labelled images that no training saw.
        holdout: synthetic images that the student never saw.
        computer: where to measure; its processes have a part of the images each.
        interruption: whether the run was asked to end: measuring on data can take a while.

    """

    def __init__(
        self,
        teacher: nn.Module | None,
        data: LabelledImages | None,
        holdout: MemoryBank | None,
        computer: Machine,
        *,
        batch_size: int,
        interruption: Interruption,
    ) -> None:
        self.teacher, self.data, self.holdout = teacher, data, holdout
        self.device, self.group, self.batch_size = computer.device, computer.group, batch_size
        self.interruption = interruption
        self._said: WeakKeyDictionary[nn.Module, Outcomes] = WeakKeyDictionary()

    def student(self, model: nn.Module) -> dict[str, Any]:
        """Scores of the student as they go into records and results.

        Raises:
            Stopped: the run was asked to end.

        """
        if self.data is not None:
            return self._on_data(model, self.data)
        if self.holdout is None or self.teacher is None:
            return {}
        shares = self.group.collect(self._agreed(model, self.teacher, self.holdout))
        agreed, count = map(sum, zip(*shares, strict=True))
        return {"agreement": agreed / count, "agreement_on": "held-back synthetic images"} if count else {}

    def _agreed(self, model: nn.Module, teacher: nn.Module, holdout: MemoryBank) -> tuple[int, int]:
        """Count the images that this process has held back, after those of them on which both networks agree."""
        if not len(holdout):
            return 0, 0
        images, _ = holdout.take(torch.arange(len(holdout), device=holdout.labels.device), self.device)
        return round(agreement(model, teacher, images) * len(images)), len(images)

    def compare(self, model: nn.Module, reference: nn.Module) -> float | None:
        """Return on which part of the data, or else of the held-back images, both have the same top-1 class.

        On data both must have been measured, and not have changed since.
        """
        if self.data is not None:
            return _same(self._said[model], self._said[reference])
        if self.holdout is None:
            return None
        shares = self.group.collect(self._agreed(model, reference, self.holdout))
        agreed, count = map(sum, zip(*shares, strict=True))
        return agreed / count if count else None

    def of_teacher(self) -> dict[str, Any]:
        """Scores of the teacher; empty without data."""
        outcomes = self._teacher_outcomes()
        return _plain(scores(outcomes)) if outcomes else {}

    def _on_data(self, model: nn.Module, data: LabelledImages) -> dict[str, Any]:
        reference, said = self._teacher_outcomes(), self._ask(model, data)
        result = {**_plain(scores(said)), "skipped": sum(self.group.collect(data.skipped))}
        if reference is not None:
            result |= {"agreement": _same(said, reference), "agreement_on": "evaluation data"}
        return result

    def _teacher_outcomes(self) -> Outcomes | None:
        """Return what the teacher says of the data; it is asked once, since it does not change."""
        if self.teacher is None or self.data is None:
            return None
        return self._said.get(self.teacher) or self._ask(self.teacher, self.data)

    def _ask(self, model: nn.Module, data: LabelledImages) -> Outcomes:
        """Measure a network on the data, and remember what it said."""
        self._said[model] = measure(
            model,
            data,
            device=self.device,
            batch_size=self.batch_size,
            group=self.group,
            interruption=self.interruption,
        )
        return self._said[model]


def _same(one: Outcomes, other: Outcomes) -> float:
    return float((one.prediction == other.prediction).double().mean())


def _plain(found: Scores) -> dict[str, Any]:
    return {**vars(found), "ci95": list(found.ci95)}
