"""Measuring a student: on labelled images where the user has some, otherwise by agreement on synthetic ones."""

from typing import cast
from weakref import WeakKeyDictionary

import torch
from torch import nn

from nayer_cli import evaluate
from nayer_cli.bank import MemoryBank
from nayer_cli.evaluate import Outcomes, count_same, measure, same_class, scores
from nayer_cli.gates import Count
from nayer_cli.images.labelled import LabelledImages
from nayer_cli.machine.interruption import Interruption
from nayer_cli.runs.assemble import Machine
from nayer_cli.runs.documents import Scores

HELD_BACK = "held-back synthetic images"
OF_RUN = "the run's synthetic images"


class Measure:
    """Measures models on `data`, or by agreement with the teacher on `synthetic` where there is no data.

    Args:
        teacher: the reference, mapping images in [0, 1] to logits; None when a network is trained from labels alone.
        data: labelled images that no training saw.
        synthetic: images without data, with what they are called in results.
        machine: where to measure; its processes have a part of the images each.
        interruption: whether the run was asked to end: measuring on data can take a while.

    """

    def __init__(
        self,
        teacher: nn.Module | None,
        data: LabelledImages | None,
        synthetic: tuple[MemoryBank, str] | None,
        machine: Machine,
        *,
        batch_size: int,
        interruption: Interruption,
    ) -> None:
        self.teacher, self.data, self.synthetic = teacher, data, synthetic
        self.device, self.group, self.batch_size = machine.device, machine.group, batch_size
        self.interruption = interruption
        self._said: WeakKeyDictionary[nn.Module, Outcomes] = WeakKeyDictionary()

    def student(self, model: nn.Module) -> Scores:
        """Scores of the student as they go into records and results.

        Raises:
            Stopped: the run was asked to end.

        """
        if self.data is not None:
            return self._on_data(model, self.data)
        if self.synthetic is None or self.teacher is None:
            return {}
        images, called = self.synthetic
        same = self._on_synthetic(model, self.teacher, images)
        return {"agreement": same.rate, "agreement_on": called} if same else {}

    def _on_synthetic(self, model: nn.Module, reference: nn.Module, images: MemoryBank) -> Count | None:
        """Count the synthetic images of all processes on which both networks agree; None if there are none."""
        slots = torch.arange(len(images), device=images.labels.device).split(self.batch_size)
        own = [count_same(model, reference, images.take(some, self.device)[0]) for some in slots]
        shares = [share for part in self.group.collect(own) for share in part]
        total = Count(sum(share.hits for share in shares), sum(share.n for share in shares))
        return total if total.n else None

    def compare(self, model: nn.Module, reference: nn.Module) -> Count | None:
        """Count the images of the data, or else the synthetic ones, on which both have the same top-1 class.

        On data both must have been measured, and not have changed since.
        """
        if self.data is not None:
            return same_class(self._said[model], self._said[reference])
        return self._on_synthetic(model, reference, self.synthetic[0]) if self.synthetic is not None else None

    def of_teacher(self) -> Scores:
        """Scores of the teacher; empty without data."""
        outcomes = self._teacher_outcomes()
        return _plain(scores(outcomes)) if outcomes else {}

    def _on_data(self, model: nn.Module, data: LabelledImages) -> Scores:
        reference, said = self._teacher_outcomes(), self._ask(model, data)
        result = _plain(scores(said))
        result["skipped"] = sum(self.group.collect(data.skipped))
        if reference is not None:
            result["agreement"], result["agreement_on"] = same_class(said, reference).rate, "evaluation data"
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


def _plain(found: evaluate.Scores) -> Scores:
    return cast(Scores, {**vars(found), "ci95": list(found.ci95)})
