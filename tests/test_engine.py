from collections.abc import Iterator
from dataclasses import replace
from math import isfinite

import pytest
import torch
from torch import Tensor, nn

from nayer_cli.bank import MemoryBank
from nayer_cli.engine import Engine, Plan
from nayer_cli.errors import RunFailed
from nayer_cli.method import Batch, LoopState, Method, SynthBatch
from nayer_cli.student import Student
from tiny import SHAPE, normalized, parts

PLAN = Plan(epochs=2, warmup_epochs=1, cycles=3, rounds=1, warmup_rounds=4, kd_steps=2)


class Diary(Method):
    """Writes down what the engine asks for."""

    batch = 4

    def __init__(self) -> None:
        super().__init__(parts(batch_size=4))
        self.pages: list[str] = []

    def synthesize(self, student: nn.Module, state: LoopState) -> SynthBatch:
        assert not student.training and not any(p.requires_grad for p in student.parameters())
        self.pages.append(f"{state.epoch}.{state.round}{'w' if state.warming_up else ''}")
        return SynthBatch(torch.rand(4, *SHAPE), torch.zeros(4, dtype=torch.long), {"ce": torch.tensor(2.0)})

    def replay(self, bank: MemoryBank, steps: int) -> Iterator[Batch]:
        self.pages.append(f"teach {steps} from {len(bank)}")
        return super().replay(bank, steps)


def engine(method: Method, **options: object) -> tuple[Engine, list[dict]]:
    model = normalized(seed=1).train()
    student = Student(model, optimizer="sgd", lr=0.1, lr_min=0, momentum=0.9, weight_decay=0, epochs=2)
    records: list[dict] = []
    made = Engine(
        method=method,
        student=student,
        bank=MemoryBank(100, SHAPE),
        **{"plan": PLAN, **options},
        rng=method.parts.rng,
        state=LoopState(warmup_epochs=1),
        evaluate=lambda engine, record: None,
        after_epoch=lambda engine, record: records.append(record),
    )
    return made, records


def test_the_order_of_rounds_and_steps_is_the_plan():
    method = Diary()
    engine(method)[0].run()
    assert method.pages[:4] == ["0.0w", "0.1w", "0.2w", "0.3w"]
    assert method.pages[4:10] == [
        "1.0",
        "teach 2 from 20",
        "1.1",
        "teach 2 from 24",
        "1.2",
        "teach 2 from 28",
    ]
    assert method.pages[-1] == "teach 2 from 40"


def test_records_count_images_and_hold_mean_losses():
    made, records = engine(Diary())
    made.run()
    assert [r["images"] for r in records] == [16, 28, 40]
    assert [r["seen"] for r in records] == [0, 24, 48]
    assert records[1]["losses"]["ce"] == 2.0 and records[1]["losses"]["student"] > 0
    assert [r["phase"] for r in records] == ["warm-up", "student", "student"]
    assert set(made.meter.seconds) == {"synthesis", "student"}


def test_images_planned_are_images_made():
    made, records = engine(Diary())
    made.run()
    assert PLAN.images(4) == records[-1]["images"]


def test_every_image_is_either_held_back_or_in_the_bank():
    class Distinct(Diary):
        def synthesize(self, student: nn.Module, state: LoopState) -> SynthBatch:
            first = state.images  # image and label number n have the value n
            numbers = torch.arange(first, first + 4)
            images = (numbers / 255).view(4, 1, 1, 1).expand(4, *SHAPE)
            return super().synthesize(student, state)._replace(images=images, labels=numbers)

        def student_loss(self, student: nn.Module, batch: Batch) -> Tensor:
            return super().student_loss(student, batch._replace(labels=batch.labels % 4))

    holdout = MemoryBank(100, SHAPE)
    made, _ = engine(Distinct(), holdout=holdout, holdout_stride=4)
    made.run()
    held, kept = (bank.held()[0][:, 0, 0, 0].tolist() for bank in (holdout, made.bank))
    assert (len(held), len(kept)) == (10, 30) and sorted(held + kept) == list(range(40))
    assert [bank.held()[1].tolist() for bank in (holdout, made.bank)] == [held, kept]


def test_images_are_held_back_from_every_class():
    class InOrder(Diary):
        def synthesize(self, student: nn.Module, state: LoopState) -> SynthBatch:
            return super().synthesize(student, state)._replace(labels=torch.arange(4))

    holdout = MemoryBank(100, SHAPE)
    engine(InOrder(), holdout=holdout, holdout_stride=4)[0].run()
    assert holdout.labels[: len(holdout)].unique().tolist() == [0, 1, 2, 3]


def nan_at(steps: set[int]) -> type[Diary]:
    class Broken(Diary):
        calls = 0

        def student_loss(self, student: nn.Module, batch: Batch) -> Tensor:
            self.calls += 1
            return super().student_loss(student, batch) + (float("nan") if self.calls in steps else 0.0)

    return Broken


def test_a_step_whose_loss_is_not_finite_is_left_out_and_counted():
    made, records = engine(nan_at({2, 5})())
    made.run()
    assert [record["skipped"] for record in records] == [0, 2, 0]
    assert all(isfinite(record["losses"]["student"]) for record in records[1:])
    assert all(value.isfinite().all() for value in made.student.model.state_dict().values())


def test_too_many_losses_that_are_not_finite_end_the_run_and_are_located():
    made, records = engine(nan_at(set(range(100)))(), plan=replace(PLAN, max_skipped=3))
    with pytest.raises(RunFailed, match=r"4 steps of epoch 2 were left out by step 4, and 3 are allowed"):
        made.run()
    assert len(records) == 1


def test_images_of_a_round_without_a_finite_step_are_not_kept():
    class Broken(Diary):
        def synthesize(self, student: nn.Module, state: LoopState) -> SynthBatch:
            batch = super().synthesize(student, state)
            fails = state.epoch == 1 and state.round > 0
            ruined = {"ce": torch.tensor(float("nan"))} if fails else batch.losses
            return batch._replace(losses=ruined, skipped=torch.tensor(float(fails)))

    made, records = engine(Broken())
    made.run()
    assert len(made.bank) == 32 and records[1]["skipped"] == 2 and records[1]["losses"]["ce"] == 2.0


def test_an_epoch_in_which_every_round_failed_ends_the_run():
    class Broken(Diary):
        def synthesize(self, student: nn.Module, state: LoopState) -> SynthBatch:
            batch = super().synthesize(student, state)
            return batch._replace(losses={"ce": torch.tensor(float("nan"))}) if state.epoch == 1 else batch

    with pytest.raises(RunFailed, match="no image could be made in 3 rounds in epoch 2"):
        engine(Broken())[0].run()


@pytest.mark.parametrize("taken", [set(), {3}])
def test_an_epoch_in_which_no_step_was_taken_ends_the_run(taken):
    made, records = engine(nan_at(set(range(1, 7)) - taken)())
    if taken:
        made.run()
        assert records[1]["skipped"] == 5
        return
    with pytest.raises(RunFailed, match="no step of the student was taken, of 6 in epoch 2"):
        made.run()


def test_the_student_learns_and_its_statistics_change_only_in_its_own_steps():
    made, _ = engine(Diary())
    before = {key: value.clone() for key, value in made.student.model.state_dict().items()}
    made._synthesize(until=3)
    assert all(torch.equal(value, before[key]) for key, value in made.student.model.state_dict().items())
    made._teach(until=2)
    assert not torch.equal(made.student.model.network[1].running_mean, before["network.1.running_mean"])


def test_warm_up_uses_up_no_learning_rate():
    rates = []

    class Rated(Diary):
        def student_loss(self, student: nn.Module, batch: Batch) -> Tensor:
            rates.append(float(made.student.optimizer.param_groups[0]["lr"]))
            return super().student_loss(student, batch)

    made, _ = engine(Rated())
    made.run()
    assert rates == pytest.approx([0.1] * 6 + [0.05] * 6)  # a cosine over the two epochs after the warm-up


def test_a_step_that_was_left_out_counts_once_however_often_it_is_asked_for(monkeypatch):
    monkeypatch.setattr("nayer_cli.engine.CHECK_STRIDE", 1)
    made, records = engine(nan_at({1})())
    made.run()
    assert [record["skipped"] for record in records] == [0, 1, 0]


def test_as_many_steps_as_are_allowed_may_be_left_out():
    made, records = engine(nan_at({1, 2})(), plan=replace(PLAN, max_skipped=2))
    made.run()
    assert [record["skipped"] for record in records] == [0, 2, 0]
