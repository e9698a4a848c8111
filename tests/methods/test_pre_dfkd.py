from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn

from nayer_cli import losses
from nayer_cli.bank import MemoryBank
from nayer_cli.method import LoopState
from nayer_cli.methods.pre_dfkd import Config, Method
from tiny import SHAPE, network, normalized, parts

CONFIG = Config(code_size=6, width=2)
BANK = MemoryBank(8, SHAPE)


def student() -> nn.Module:
    return normalized(seed=1).eval().requires_grad_(False)


def vae(method: Method) -> list[torch.Tensor]:
    return [value.detach().clone() for value in method.memory.parameters()]


def test_a_batch_is_fresh_images_and_after_them_remembered_ones():
    method = Method(replace(CONFIG, replay=0.5), parts())
    method.synthesize(student(), LoopState())
    batch = next(iter(method.replay(BANK, 1)))
    assert len(batch) == 12 and batch.fresh == 8 and not batch.images.requires_grad
    assert (batch.labels == -1).all()


def test_two_images_are_remembered_at_least():
    assert Method(CONFIG, parts(batch_size=4)).memory.recall().shape == (2, *SHAPE)


def test_remembered_images_join_after_some_steps_also_across_cycles():
    method, sizes = Method(replace(CONFIG, replay=0.5, recall_after=3), parts()), []
    for _ in range(2):
        method.synthesize(student(), LoopState())
        sizes += [len(batch) - batch.fresh for batch in method.replay(BANK, 2)]
    assert sizes == [0, 0, 0, 4]


def test_the_vae_learns_in_the_first_steps_of_each_cycle():
    method, moved = Method(replace(CONFIG, vae_steps=2), parts()), []
    for _ in range(2):
        method.synthesize(student(), LoopState())
        for steps in (1, 3):  # a cycle that is interrupted after its first step
            before = vae(method)
            for _ in method.replay(BANK, steps):
                now = vae(method)
                moved.append(not torch.equal(before[0], now[0]))
                before = now
    assert moved == [True, True, False, False] * 2


def test_in_the_first_cycle_the_vae_learns_fresh_images_alone_and_then_its_own_too():
    method, seen = Method(replace(CONFIG, replay=0.25), parts()), []
    method.memory._step = lambda images, more=None: seen.append(len(images))
    for _ in range(2):
        method.synthesize(student(), LoopState())
        list(method.replay(BANK, 2))
    assert seen == [4, 4, 6, 6]


def test_no_image_is_stored_and_the_bank_stays_unread():
    method = Method(CONFIG, parts())
    assert method.store is None and method.own_rows() == []
    assert not any(value.shape[1:] == SHAPE for value in method.state_dict().values() if hasattr(value, "shape"))


def test_codes_that_do_not_move_are_decoded_as_they_were_drawn_with_running_statistics():
    method = Method(replace(CONFIG, lr_z=0.0), parts())
    codes = torch.randn(2, 6)
    method.memory.codes = codes.clone
    before = {name: value.clone() for name, value in method.memory.decoder.named_buffers()}
    recalled = method.memory.recall()
    torch.testing.assert_close(recalled, method.memory.decoder.eval()(codes).detach())
    assert all(torch.equal(value, before[name]) for name, value in method.memory.decoder.named_buffers())


def test_without_a_memory_it_is_dafl_with_the_disagreement():
    method = Method(replace(CONFIG, replay=0.0), parts())
    made = method.synthesize(student(), LoopState())
    (batch,) = method.replay(BANK, 1)
    assert len(batch) == 8 and method.memory.loss == 0
    t, s = method.parts.critic.logits(batch.images), student()(batch.images)
    assert method.student_loss(student(), batch) == losses.logit_l1(t, s)
    assert made.losses.keys() == {"ce", "balance", "act", "js", "vae"}


def test_the_released_reduction_is_silent_where_there_are_many_classes():
    t, s = torch.randn(8, 200), torch.randn(8, 200, requires_grad=True)
    losses.clamped_jensen_shannon(t, s).backward()
    assert torch.equal(s.grad, torch.zeros_like(s))
    released, ours = (Method(replace(CONFIG, js_reduction=how), parts(classes=50)) for how in ("released", "batchmean"))
    assert released.synthesize(normalized(classes=50), LoopState()).losses["js"] >= 0
    assert ours.synthesize(normalized(classes=50), LoopState()).losses["js"] <= 0


def test_disagreement_reaches_the_images_through_the_student_alone():
    method = Method(replace(CONFIG, ce=0.0, balance=0.0, act=0.0), parts())
    constant = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).requires_grad_(False)
    constant[1].weight.zero_()
    method.synthesize(constant, LoopState())
    assert all(value.grad.abs().max() == 0 for value in method.generator.network.parameters())


def test_a_teacher_that_ends_in_a_convolution_has_no_activation_term():
    given = parts()
    layers = list(network())[:-3]
    fully = nn.Sequential(*layers, nn.Conv2d(6, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    teacher = normalized()
    teacher.network = fully
    given = given._replace(critic=type(given.critic)(teacher))
    assert Method(CONFIG, given).synthesize(student(), LoopState()).losses["act"] == 0
    assert Method(CONFIG, parts()).synthesize(student(), LoopState()).losses["act"] < 0


def test_a_run_that_is_continued_inside_a_cycle_goes_on_exactly():
    def run(method: Method, steps: int) -> list[torch.Tensor]:
        return [batch.images for batch in method.replay(BANK, steps)]

    method, again = Method(CONFIG, parts()), Method(CONFIG, parts(seed=5))
    for _ in range(2):
        method.synthesize(student(), LoopState())
        run(method, 1)
    again.load_state_dict(deepcopy(method.state_dict()))
    again.parts.rng.load_state_dict(method.parts.rng.state_dict())
    for expected, found in zip(run(method, 4), run(again, 4), strict=True):
        assert torch.equal(expected, found)


def test_a_step_of_the_vae_that_is_not_finite_is_left_out():
    method = Method(CONFIG, parts())
    before, loss = vae(method), method.memory.loss
    method.memory.learn(torch.full((8, *SHAPE), torch.nan))
    assert all(torch.equal(now, then) for now, then in zip(vae(method), before, strict=True))
    assert method.memory.loss == loss == 0


@pytest.mark.parametrize("tune", [False, True])
def test_the_decoder_may_follow_the_loss_of_its_own_codes(tune):
    method = Method(replace(CONFIG, tune_decoder=tune), parts())
    method.memory.before = 1
    found = []
    method.memory._step = lambda images, more=None: found.append(more is not None)
    method.memory.learn(torch.rand(8, *SHAPE))
    assert found == [tune]
