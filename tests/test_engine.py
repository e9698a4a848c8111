import itertools
import signal
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from math import cos, isfinite, pi

import pytest
import torch
from torch import Tensor, nn

from nayer_cli.bank import MemoryBank
from nayer_cli.budget import parse_budget
from nayer_cli.engine import Engine, Plan
from nayer_cli.errors import Interrupted, RunFailed
from nayer_cli.machine.distributed import Group
from nayer_cli.machine.interruption import Interruption, Stopped
from nayer_cli.meter import Meter
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
    student = Student(model, optimizer="sgd", lr=0.1, lr_min=0, momentum=0.9, weight_decay=0)
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


def test_steps_until_convergence_are_counted_only_when_asked():
    class Converging(Diary):
        def synthesize(self, student: nn.Module, state: LoopState) -> SynthBatch:
            reached = state.round % 2  # every other round, after one step
            course = [torch.tensor(3.0), torch.tensor(0.05 if reached else 1.0), torch.tensor(0.01 if reached else 1.0)]
            return super().synthesize(student, state)._replace(course=course)

    for asked in (True, False):
        made, records = engine(Converging(), counts_steps=asked)
        made.run()
        found = [record.get("convergence") for record in records]
        assert found[0] == ({"rounds": 4, "share": 0.5, "steps": 1.0, "bounded": 2.5} if asked else None)
        assert [set(record["losses"]) for record in records] == [{"ce"}, {"ce", "student"}, {"ce", "student"}]


def test_a_record_describes_its_epoch(monkeypatch):
    monkeypatch.setattr("time.perf_counter", itertools.count().__next__)  # a second passes between two looks
    made, records = engine(Diary())
    made.run()
    assert [(record["event"], record["epoch"], record["epochs"]) for record in records] == [
        ("epoch", 1, 3),
        ("epoch", 2, 3),
        ("epoch", 3, 3),
    ]
    assert [record["images_per_s"] * record["seconds"] for record in records] == [16, 36, 36]
    # Three cycles, each of which looks twice at synthesis and twice at learning, and the end.
    assert [record["seconds"] for record in records] == [3, 13, 13]
    assert made.meter.seconds == {"synthesis": 7, "student": 6}


def test_progress_is_told_round_by_round_and_step_by_step():
    told: list[dict] = []
    engine(Diary(), listen=told.append)[0].run()
    assert told[0] == {"event": "progress", "epoch": 1, "phase": "synthesis", "done": 1, "of": 4}
    second = [(record["phase"], record["done"], record["of"]) for record in told if record["epoch"] == 2]
    assert second[:4] == [("synthesis", 1, 1), ("student", 1, 6), ("student", 2, 6), ("synthesis", 2, 2)]
    assert len(told) == 10 + 12


def test_images_of_all_processes_count():
    class Twins(Group):  # the other process has what this one has
        def average(self, tensors: list[Tensor]) -> None:
            pass

        def largest(self, value: int) -> int:
            return value

    made, records = engine(Diary(), group=Twins(0, 2))
    made.run()
    assert [(record["images"], record["seen"]) for record in records] == [(32, 0), (56, 48), (80, 96)]


def test_learning_is_prepared_once_when_there_are_images():
    held: list[int] = []
    engine(Diary(), before_learning=lambda made: held.append(len(made.bank)))[0].run()
    assert held == [20]


def test_a_checkpoint_is_written_between_two_steps_when_it_is_time():
    def saves(seconds: float, ago: float = 0.0) -> int:
        saved: list[Engine] = []
        made, _ = engine(Diary(), save=saved.append, save_seconds=seconds)
        made.saved_at -= ago
        made.run()
        assert all(one is made for one in saved) and ("saving" in made.meter.seconds) == bool(saved)
        return len(saved)

    assert saves(seconds=float("inf"), ago=1e9) == saves(seconds=3600) == 0
    assert saves(seconds=3600, ago=3601) == 1
    assert saves(seconds=-1) == 3 + 10 + 12 + 1  # epochs, rounds, steps, and the end


def test_a_run_that_is_asked_to_end_writes_a_checkpoint_and_ends_after_the_round():
    interruption, saved = Interruption(Group()), []

    class Asked(Diary):
        def synthesize(self, student: nn.Module, state: LoopState) -> SynthBatch:
            if (state.epoch, state.round) == (1, 1):
                interruption._ask(signal.SIGTERM, None)
            return super().synthesize(student, state)

    made, _ = engine(
        Asked(), interruption=interruption, save=lambda one: saved.append((one.state.round, len(one.bank)))
    )
    with pytest.raises(Interrupted) as caught:
        made.run()
    assert caught.value.exit_code == 128 + signal.SIGTERM and saved == [(2, 24)]


def test_an_evaluation_that_is_stopped_leaves_the_epoch_to_be_continued():
    interruption, saved = Interruption(Group()), []

    def stopped(made: Engine, record: dict) -> None:
        interruption._ask(signal.SIGINT, None)
        raise Stopped

    made, records = engine(Diary(), interruption=interruption, save=lambda one: saved.append(one.state.round))
    made.evaluate = stopped
    with pytest.raises(Interrupted):
        made.run()
    assert (saved, records, made.state.epoch) == ([4], [], 0)


def test_a_round_that_was_given_up_leaves_everything_as_it_was():
    class GivesUp(Diary):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("drawn", torch.zeros(2))

        def synthesize(self, student: nn.Module, state: LoopState) -> SynthBatch:
            self.drawn += torch.rand(2, generator=self.parts.rng["noise"])
            student.network[1].running_mean.add_(1)
            raise Stopped

    made, _ = engine(GivesUp())
    torch.rand(1, generator=made.rng["noise"])
    before = deepcopy((made.method.state_dict(), made.rng.state_dict(), made.student.model.state_dict()))
    assert made._round(made.student.model) is None
    for now, then in zip((made.method, made.rng, made.student.model), before, strict=True):
        assert all(torch.equal(value, then[key]) for key, value in now.state_dict().items())


def test_without_any_image_the_run_fails_with_a_sentence():
    class Ruined(Diary):
        def synthesize(self, student: nn.Module, state: LoopState) -> SynthBatch:
            return super().synthesize(student, state)._replace(losses={"ce": torch.tensor(torch.nan)})

    with pytest.raises(RunFailed, match=r"^no image could be made in 4 rounds in epoch 1: losses or") as caught:
        engine(Ruined())[0].run()
    assert caught.value.hint.startswith("start again with a lower learning rate")


def test_losses_that_are_not_finite_are_left_out_of_the_mean():
    meter = Meter()
    for value in (1.0, torch.nan, 3.0):
        meter.add("ce", torch.tensor(value))
    meter.add("adv", torch.tensor(torch.inf))
    again = Meter()
    again.load_state_dict(meter.state_dict())
    again.add("ce", torch.tensor(5.0))
    assert meter.read(Group(), torch.tensor(7.0)) == ({"ce": 2.0}, 7.0)
    assert again.read(Group(), torch.tensor(7.0)) == ({"ce": 3.0}, 7.0)


@pytest.mark.parametrize("plan", [PLAN, replace(PLAN, rounds=2)])
def test_images_planned_are_images_made(plan):
    made, records = engine(Diary(), plan=plan)
    made.run()
    assert plan.images(4) == records[-1]["images"]


def test_losses_are_means_over_all_processes():
    class Peers(Group):  # the other process had the same loss three times, in steps that all were finite
        def average(self, tensors: list[Tensor]) -> None:
            tensors[0][0] += torch.tensor([9.0, 3.0])

    meter = Meter()
    meter.add("ce", torch.tensor(1.0))
    assert meter.read(Peers(0, 2), torch.tensor(7.0)) == ({"ce": 2.5}, 7.0)


def test_who_measures_and_who_writes_down_is_given_the_engine_and_its_record():
    given: list[tuple[str, object, int]] = []
    made, _ = engine(Diary())
    made.evaluate = lambda one, record: given.append(("measure", one, record["epoch"]))
    made.after_epoch = lambda one, record: given.append(("write", one, record["epoch"]))
    made.run()
    assert given == [(what, made, epoch) for epoch in (1, 2, 3) for what in ("measure", "write")]


def test_a_store_takes_over_the_rows_of_rounds_that_succeeded():
    class Pushed:
        def __init__(self) -> None:
            self.rows: list[object] = []

        def push(self, rows: object) -> None:
            self.rows.append(rows)

    class Remembers(Diary):
        def synthesize(self, student: nn.Module, state: LoopState) -> SynthBatch:
            batch = super().synthesize(student, state)
            if state.round == 3:
                return batch  # which has none
            lost = {"ce": torch.tensor(torch.nan)} if state.round == 1 else batch.losses
            return batch._replace(rows={"number": torch.tensor(state.round)}, losses=lost)

    method = Remembers()
    method.store = Pushed()
    engine(method)[0]._synthesize(until=4)
    assert [int(rows["number"]) for rows in method.store.rows] == [0, 2]
    method.store = None
    engine(method)[0]._synthesize(until=4)


def test_what_a_full_bank_drops_is_drawn_from_the_run_s_own_randomness():
    def held(disturbed: int) -> list[list[float]]:
        torch.manual_seed(0)
        banks = [MemoryBank(3, SHAPE, policy="reservoir") for _ in range(2)]
        made, _ = engine(Diary(), holdout=banks[0], holdout_stride=2)
        made.bank = banks[1]
        images = torch.rand(20, *SHAPE)
        torch.manual_seed(disturbed)
        made.keep(images, torch.arange(20))
        return [bank.held()[0].flatten().tolist() for bank in banks]

    assert held(1) == held(2)


def test_a_bank_of_one_image_teaches():
    class One(Diary):
        batch = 1

        def synthesize(self, student: nn.Module, state: LoopState) -> SynthBatch:
            batch = super().synthesize(student, state)
            return batch._replace(images=batch.images[:1], labels=batch.labels[:1])

        def replay(self, bank: MemoryBank, steps: int) -> Iterator[Batch]:
            assert len(bank) == state.step // 2 + 1
            return iter([Batch(torch.rand(4, *SHAPE), torch.zeros(4, dtype=torch.long))] * steps)

    made, _ = engine(One(), plan=replace(PLAN, warmup_epochs=0, epochs=1))
    state = made.state
    made.run()
    assert state.seen == 24


def test_the_host_looks_now_and_then_whether_steps_are_left_out(monkeypatch):
    monkeypatch.setattr("nayer_cli.engine.CHECK_STRIDE", 2)
    made, _ = engine(nan_at(set(range(100)))(), plan=replace(PLAN, kd_steps=5, max_skipped=1))
    with pytest.raises(
        RunFailed, match=r"^losses or gradients are not finite: 2 steps .* left out by step 2,"
    ) as caught:
        made.run()
    assert caught.value.hint.startswith("start again with a lower learning rate")


def test_too_many_steps_of_rounds_are_located():
    class Broken(Diary):
        def synthesize(self, student: nn.Module, state: LoopState) -> SynthBatch:
            return super().synthesize(student, state)._replace(skipped=torch.tensor(2.0))

    with pytest.raises(RunFailed, match="4 steps of epoch 1 were left out by round 2, and 3 are allowed"):
        engine(Broken(), plan=replace(PLAN, max_skipped=3))[0].run()


def test_a_checkpoint_is_not_due_at_the_very_moment(monkeypatch):
    monkeypatch.setattr("time.monotonic", lambda: 5.0)
    saved: list[Engine] = []
    made, _ = engine(Diary(), save=saved.append, save_seconds=0)
    made.saved_at = 5.0
    made.run()
    assert saved == []


def test_processes_end_together_once_the_main_one_has_saved():
    order: list[object] = []

    class Watched(Group):
        def largest(self, value: int) -> int:
            order.append(value)
            return value

    interruption = Interruption(Group())
    interruption._ask(signal.SIGTERM, None)
    made, _ = engine(Diary(), group=Watched(), interruption=interruption, save=lambda one: order.append("saved"))
    with pytest.raises(Interrupted):
        made.run()
    assert order[-2:] == ["saved", 0]


def test_every_image_is_either_held_back_or_in_the_bank():
    class Distinct(Diary):
        def synthesize(self, student: nn.Module, state: LoopState) -> SynthBatch:
            first = state.images  # image and label number n have the value n
            numbers = torch.arange(first, first + 4)
            images = (numbers / 255).view(4, 1, 1, 1).expand(4, *SHAPE)
            return super().synthesize(student, state)._replace(images=images, labels=numbers)

        def student_loss(self, student: nn.Module, batch: Batch) -> Tensor:
            return super().student_loss(student, replace(batch, labels=batch.labels % 4))

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


@pytest.mark.parametrize(("left_out", "kept"), [(3, 16), (2, 28)])
def test_images_of_a_round_that_took_no_step_are_not_kept(left_out, kept):
    class Stuck(Diary):  # losses are finite, and gradients are not
        def synthesize(self, student: nn.Module, state: LoopState) -> SynthBatch:
            batch = super().synthesize(student, state)
            fails = state.epoch == 1
            return batch._replace(skipped=torch.tensor(left_out if fails else 0), steps=3)

    made, _ = engine(Stuck())
    if kept == 28:
        made.run()
        return
    with pytest.raises(RunFailed, match="no image could be made in 3 rounds in epoch 2: losses or gradients were not"):
        made.run()
    assert len(made.bank) == kept


def test_a_student_is_not_taught_by_an_empty_bank():
    class Stuck(Diary):
        def synthesize(self, student: nn.Module, state: LoopState) -> SynthBatch:
            return super().synthesize(student, state)._replace(skipped=torch.tensor(2.0), steps=2)

    made, _ = engine(Stuck(), plan=replace(PLAN, warmup_epochs=0))
    with pytest.raises(RunFailed, match=r"^no image could be made in epoch 1: losses or") as caught:
        made.run()
    assert "learning rate" in caught.value.hint


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
    with pytest.raises(RunFailed, match="not one of the student's 6 steps was taken in epoch 2"):
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


def rates(made: Engine) -> list[float]:
    """Learning rates of the steps as they are taken."""
    found, step = [], made.student.step

    def noted(*given: object) -> dict[str, Tensor]:
        found.append(made.student.optimizer.param_groups[0]["lr"])
        return step(*given)

    made.student.step = noted
    return found


def test_a_budget_of_images_ends_the_run_inside_an_epoch_at_the_end_of_the_cosine():
    method = Diary()
    made, records = engine(method, plan=replace(PLAN, budget=parse_budget("38images")))
    found = rates(made)
    made.run()
    assert [(record["seen"], record["epochs"], record["spent"]) for record in records[1:]] == [
        (24, None, pytest.approx(24 / 38)),
        (40, None, pytest.approx(40 / 38)),
    ]
    wanted = [0.1 * (1 + cos(pi * 4 * step / 38)) / 2 for step in range(10)]
    assert found == pytest.approx(wanted)
    assert made.used() == 40 and made.ends_with(3)


@pytest.mark.parametrize(("unit", "clock"), [("s", "time.perf_counter"), ("cpu-s", "time.process_time")])
def test_a_budget_of_time_counts_warm_up_and_not_what_is_saved_or_measured(unit, clock, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(clock, lambda: now[0])

    class Slow(Diary):
        def synthesize(self, student: nn.Module, state: LoopState) -> SynthBatch:
            now[0] += 5
            return super().synthesize(student, state)

    def measure(made: Engine, record: dict) -> None:
        now[0] += 1000

    made, records = engine(Slow(), plan=replace(PLAN, budget=parse_budget(f"29{unit}")))
    made.evaluate, found = measure, rates(made)
    made.run()
    assert [record["images"] for record in records] == [16, 24]  # 4 rounds of 5 s, and 2 of the 3 that were planned
    assert made.used() == 30 and found == pytest.approx([0.1 * (1 + cos(0)) / 2] * 2)
    records.clear()
    made, records = engine(Slow(), plan=replace(PLAN, budget=parse_budget(f"19{unit}")))
    with pytest.raises(RunFailed, match="before the student began"):
        made.run()


def test_a_budget_of_operations_counts_rounds_and_steps_but_none_that_are_given_up():
    class Working(Diary):
        def synthesize(self, student: nn.Module, state: LoopState) -> SynthBatch:
            _ = torch.ones(10, 5) @ torch.ones(5, 2)  # 200 operations
            if self.given_up:
                self.given_up = False
                raise Stopped
            return super().synthesize(student, state)

    method = Working()
    method.given_up = True
    made, records = engine(method, plan=replace(PLAN, budget=parse_budget("1e6flop")))
    made.run()
    state = made.state
    assert records[0]["spent"] == pytest.approx(4 * 200 / 1e6)
    assert state.flop - 200 * state.images // 4 == 3 * 415_488 and state.seen == 3 * 4
