from dataclasses import replace

import torch
from torch import nn

from nayer_cli import losses
from nayer_cli.bank import MemoryBank
from nayer_cli.method import LoopState
from nayer_cli.methods.mb_dfkd import Config, Method
from nayer_cli.replay_memory import Rehearsal
from tiny import SHAPE, normalized, parts

CONFIG = Config(code_size=6, width=2, replay=0.25)
BANK = MemoryBank(8, SHAPE)
MADE = torch.zeros(8, *SHAPE)


def student() -> nn.Module:
    return normalized(seed=1).eval().requires_grad_(False)


def epoch(method: Method, number: int, cycles: int = 1) -> list[Rehearsal]:
    """Run one epoch as the engine does, and return what the student saw."""
    seen: list[Rehearsal] = []
    for cycle in range(cycles):
        made = method.synthesize(student(), LoopState(epoch=number, round=cycle))
        if made.rows is not None:
            method.store.push(made.rows)
        seen += method.replay(BANK, 2)
    return seen


def test_the_first_epoch_has_nothing_to_remember_and_the_second_has():
    method = Method(CONFIG, parts())
    first, second = epoch(method, 0), epoch(method, 1)
    assert [len(batch) for batch in first] == [8, 8] and [len(batch) for batch in second] == [10, 10]
    assert all(batch.fresh == 8 for batch in first + second)


def test_what_is_remembered_are_the_first_images_of_the_last_batch_of_an_epoch():
    method = Method(replace(CONFIG, capacity=1, push_every=1), parts())
    for number in range(3):
        last = epoch(method, number, cycles=2)[-1].images[:2]
    recalled = epoch(method, 3)[0].images[8:]
    torch.testing.assert_close(recalled, last, atol=2e-3, rtol=0)


def test_one_batch_in_five_epochs_is_kept_and_the_oldest_of_ten_is_overwritten():
    method = Method(CONFIG, parts())
    pushed = [
        number
        for number in range(52)
        if method.memory.rows(LoopState(warmup_epochs=1, epoch=number + 1), MADE) is not None
    ]
    assert pushed == [*range(1, 52, 5)] and len(pushed) == 11
    for number in range(11):
        method.store.push({"images": torch.full((2, *SHAPE), float(number))})
    assert sorted(method.store.tensors["images"][:, 0, 0, 0].tolist()) == sorted([*range(1, 11)] * 2)


def test_only_the_first_round_of_an_epoch_keeps_anything():
    ring = Method(CONFIG, parts()).memory
    assert [ring.rows(LoopState(epoch=1, round=number), MADE) is not None for number in range(3)] == [
        True,
        False,
        False,
    ]
    assert ring.rows(LoopState(epoch=0), MADE) is None and ring.rows(LoopState(warmup_epochs=5, epoch=5), MADE) is None


def test_rows_of_one_batch_stay_together():
    method, seen = Method(replace(CONFIG, capacity=3), parts()), set()
    for number in range(3):
        method.store.push({"images": torch.full((2, *SHAPE), float(number))})
    for _ in range(20):
        one, other = method.memory.recall()[:, 0, 0, 0].tolist()
        assert one == other
        seen.add(one)
    assert seen == {0, 1, 2}


def test_some_images_of_every_round_may_be_kept_and_recalled_one_by_one():
    method = Method(replace(CONFIG, capacity=4, keep=3, generator="linear-shallow"), parts())
    seen = [len(batch) for number in range(4) for batch in epoch(method, number)]
    assert seen == [10] * 8  # already in the first epoch
    assert method.store.added == 12 and len(method.store) == 8  # the newest of 4 · 3, in room for 4 · 2
    method.store.push({"images": torch.arange(8.0).view(8, 1, 1, 1).expand(8, *SHAPE)})
    recalled = [tuple(method.memory.recall()[:, 0, 0, 0].tolist()) for _ in range(40)]
    assert {value for pair in recalled for value in pair} == set(range(8))
    assert any(abs(one - other) > 1 for one, other in recalled)


def test_the_student_loss_is_the_l1_of_all_rows():
    method = Method(CONFIG, parts())
    (*_, batch) = epoch(method, 0) + epoch(method, 1)
    net = student()
    expected = losses.logit_l1(method.parts.critic.logits(batch.images), net(batch.images))
    assert method.student_loss(net, batch) == expected and len(batch) == 10
