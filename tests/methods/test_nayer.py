from dataclasses import replace

import pytest
import torch

from nayer_cli.method import LoopState
from nayer_cli.methods.nayer import Config, Method
from tiny import normalized, parts

CONFIG = Config(batch=8, g_steps=2, code_size=6, width=2, g_life=10)


def student() -> torch.nn.Module:
    return normalized(seed=1).eval().requires_grad_(False)


def test_the_generator_starts_afresh_when_its_life_ends_and_only_in_the_first_round():
    method, seen = Method(CONFIG, parts()), []
    for epoch in (9, 10, 11, 20):
        for number in (0, 1):
            method.synthesize(student(), LoopState(warmup_epochs=20, epoch=epoch, round=number))
            seen.append(id(method.generator))
    first, tenth, twentieth = seen[0], seen[2], seen[6]
    assert seen == [first, first, tenth, tenth, tenth, tenth, twentieth, twentieth]
    assert len({first, tenth, twentieth}) == 3


def test_the_generator_lives_by_the_clock_of_the_run_and_by_that_of_the_student():
    method, seen = Method(replace(CONFIG, g_life=5), parts()), []
    for epoch in range(1, 12):
        before = method.generator
        method.synthesize(student(), LoopState(warmup_epochs=3, epoch=epoch))
        seen += [epoch] if method.generator is not before else []
    assert seen == [3, 5, 8, 10]


def test_the_adversarial_term_is_absent_during_warm_up():
    method = Method(CONFIG, parts())
    assert "adv" not in method.synthesize(student(), LoopState(warmup_epochs=2, epoch=1)).losses
    assert "adv" in method.synthesize(student(), LoopState(warmup_epochs=2, epoch=2)).losses


def test_statistics_momentum_scales_the_gradient_after_the_first_round():
    method = Method(CONFIG, parts())
    now = method.parts.critic.running
    mean = (now.mean + 1).requires_grad_(True)

    def gradient() -> torch.Tensor:
        return torch.autograd.grad(method._statistics_term(now._replace(mean=mean)), mean)[0]

    fresh = gradient()
    method.bn_mean.copy_(mean.detach())
    method.bn_var.copy_(now.var)
    torch.testing.assert_close(gradient(), 0.1 * fresh)


def test_momentum_buffers_move_a_tenth_of_the_way():
    method = Method(CONFIG, parts())
    now = method.parts.critic.running
    method._remember(now, sound=torch.tensor(True))
    torch.testing.assert_close(method.bn_mean, now.mean)
    method._remember(now._replace(mean=now.mean + 10), sound=torch.tensor(True))
    torch.testing.assert_close(method.bn_mean, now.mean + 1)


def test_the_kept_images_are_those_of_the_best_step_before_its_update():
    method = Method(replace(CONFIG, g_steps=1), parts())
    state = LoopState(epoch=1)
    batch = method.synthesize(student(), state)
    with pytest.raises(AssertionError):  # one update later the generator draws something else
        torch.testing.assert_close(method.draw(batch.labels), batch.images)


def test_without_batch_norm_total_variation_takes_over():
    given = parts()
    for module in given.critic.teacher.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean = None
    bare = type(given.critic)(given.critic.teacher)
    assert not bare.has_statistics


def test_more_steps_lower_the_cross_entropy():
    few, many = (
        Method(replace(CONFIG, g_steps=steps, bn=0.0), parts()).synthesize(student(), LoopState(epoch=1))
        for steps in (1, 60)
    )
    assert many.losses["ce"] < 0.95 * few.losses["ce"]
