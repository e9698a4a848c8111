"""What every method must do, whoever wrote it; a new file in `methods/` is tested by existing."""

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from nayer_cli import plugins
from nayer_cli.bank import MemoryBank
from nayer_cli.method import LoopState, Method, SynthBatch
from nayer_cli.storage.checkpoint import load_state, save_state
from nayer_cli.types import ImageShape
from tiny import CLASSES, SHAPE, normalized, parts

pytestmark = pytest.mark.parametrize("name", plugins.names("methods"))
SMALL = {"batch": 8, "g_steps": 2, "code_size": 6, "width": 2}


def make(name: str, seed: int = 0, shape: ImageShape = SHAPE) -> Method:
    plugin = plugins.load("methods", name)
    known = {item.name for item in fields(plugin.Config)}
    config = replace(plugin.Config(), **{key: value for key, value in SMALL.items() if key in known})
    return plugin.Method(config, parts(seed, shape))


def rounds(method: Method, count: int = 2, student: torch.nn.Module | None = None) -> list[SynthBatch]:
    student = student or normalized(seed=1, channels=method.parts.shape.channels).eval().requires_grad_(False)
    return [remember(method, method.synthesize(student, LoopState(epoch=1, round=i))) for i in range(count)]


def remember(method: Method, batch: SynthBatch) -> SynthBatch:
    """Do what the engine does after a round."""
    if method.store is not None and batch.rows is not None:
        method.store.push(batch.rows)
    return batch


def test_rounds_give_images_in_range_and_finite_named_losses(name):
    method = make(name)
    for batch in rounds(method):
        images, labels, losses = batch.images, batch.labels, batch.losses
        assert images.shape == (method.batch, *SHAPE) and images.dtype == torch.float32
        assert images.min() >= 0 and images.max() <= 1 and not images.requires_grad
        assert labels.shape == (method.batch,) and labels.min() >= 0 and labels.max() < CLASSES
        assert losses and all(value.ndim == 0 and value.isfinite() for value in losses.values())
        assert batch.skipped is None or batch.skipped == 0


def test_a_round_that_takes_no_step_says_so(name, monkeypatch):
    method = make(name)
    monkeypatch.setattr("torch.nn.utils.get_total_norm", lambda gradients: torch.tensor(torch.inf))
    assert all(batch.skipped is not None and batch.skipped == batch.steps for batch in rounds(method))


def test_its_author_need_not_know_that_a_run_may_have_several_processes(name):
    source = Path(plugins.load("methods", name).__file__).read_text(encoding="utf-8")
    assert not re.search(r"process|distributed|\brank|\bGroup\b|\.group\b|\.shared\b", source)


def test_images_of_any_shape(name):
    shape = ImageShape(1, 9, 14)
    assert rounds(make(name, shape=shape), 1)[0].images.shape[1:] == shape


def test_the_same_seed_gives_the_same_images_and_another_seed_others(name):
    first, again, other = (rounds(make(name, seed))[1].images for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_teacher_does_not_change_by_a_bit(name):
    method = make(name)
    critic = method.parts.critic
    before = {key: value.clone() for key, value in critic.state_dict().items()}
    rounds(method)
    assert all(torch.equal(value, before[key]) for key, value in critic.state_dict().items())
    assert all(parameter.grad is None for parameter in critic.parameters())


def test_the_student_is_left_alone_by_synthesis(name):
    student = normalized(seed=1).eval().requires_grad_(False)
    before = {key: value.clone() for key, value in student.state_dict().items()}
    rounds(make(name), student=student)
    assert all(torch.equal(value, before[key]) for key, value in student.state_dict().items())
    assert not student.training and all(parameter.grad is None for parameter in student.parameters())


def test_the_student_learns_from_what_is_replayed(name):
    method, student = make(name), normalized(seed=1).train()
    bank = MemoryBank(64, SHAPE)
    batch = rounds(method, 1)[0]
    bank.add(batch.images, batch.labels, torch.Generator())
    replayed = list(method.replay(bank, 3))
    assert len(replayed) == 3
    assert all(batch.images.shape[1:] == SHAPE and len(batch) == len(batch.labels) for batch in replayed)
    loss = method.student_loss(student, replayed[0])
    total, terms = (loss, {}) if isinstance(loss, torch.Tensor) else loss
    total.backward()
    assert total.isfinite() and all(value.ndim == 0 and value.isfinite() for value in terms.values())
    assert any(p.grad.abs().sum() > 0 for p in student.parameters())


def test_state_round_trips_through_a_file_and_the_next_round_is_the_same(name, tmp_path):
    method = make(name)
    rounds(method, 1)
    store = method.store
    held = {} if store is None else store.read(store.by_age())  # checkpoints keep it in files of its own
    save_state(tmp_path / "s", {"method": method.state_dict(), "rng": method.parts.rng.state_dict()})
    expected = rounds(method, 1)[0]
    again = make(name)
    state = load_state(tmp_path / "s")
    again.load_state_dict(state["method"])
    if again.store is not None:
        again.store.push(held)
    again.parts.rng.load_state_dict(state["rng"])
    assert torch.equal(rounds(again, 1)[0].images, expected.images)
