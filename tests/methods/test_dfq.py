from dataclasses import replace

import pytest
import torch

from nayer_cli import losses
from nayer_cli.bank import MemoryBank
from nayer_cli.critic import Critic
from nayer_cli.method import LoopState
from nayer_cli.methods import dfq, zskt
from nayer_cli.types import ImageShape
from tiny import SHAPE, normalized, parts

CONFIG = dfq.Config(code_size=6, width=2)
PLAIN = replace(CONFIG, bn=0.0, ce=0.0, balance=0.0)


def student(seed: int = 1) -> torch.nn.Module:
    return normalized(seed=seed).eval().requires_grad_(False)


def gradients(method: torch.nn.Module, other: torch.nn.Module) -> list[torch.Tensor]:
    method.synthesize(other, LoopState())
    return [parameter.grad for parameter in method.generator.network.parameters()]


def test_without_the_prior_its_step_is_that_of_zskt():
    ours = gradients(dfq.Method(PLAIN, parts()), student())
    unclipped = zskt.Config(code_size=6, width=2, generator="tapered", clip=1e9)
    theirs = gradients(zskt.Method(unclipped, parts()), student())
    assert any(gradient.abs().max() > 0 for gradient in ours)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


def test_a_student_that_is_the_teacher_pulls_nowhere():
    method = dfq.Method(PLAIN, parts())
    assert all(gradient.abs().max() < 1e-6 for gradient in gradients(method, method.parts.critic.teacher))


def test_the_student_has_no_say_during_warm_up():
    with_student, without = dfq.Method(CONFIG, parts()), dfq.Method(replace(CONFIG, adv=0.0), parts())
    warming_up = with_student.synthesize(student(), LoopState(warmup_epochs=1))
    assert "adv" not in warming_up.losses
    assert torch.equal(warming_up.images, without.synthesize(student(), LoopState()).images)


@pytest.mark.parametrize("term", ["bn", "ce", "balance", "adv"])
def test_each_term_alone_is_minimized(term):
    weights = dict.fromkeys(("bn", "ce", "balance", "adv"), 0.0) | {term: 1.0}
    method = dfq.Method(replace(CONFIG, lr_g=1e-2, **weights), parts())
    values = [method.synthesize(student(), LoopState()).losses[term].item() for _ in range(40)]
    assert sum(values[-5:]) < sum(values[:5])


def test_the_variant_of_another_implementation():
    native = replace(CONFIG, prior="gaussian", confidence="entropy")
    method, plain = dfq.Method(native, parts()), dfq.Method(CONFIG, parts())
    terms = method.synthesize(student(), LoopState()).losses
    images = plain.synthesize(student(), LoopState()).images
    critic = plain.parts.critic
    judgement = critic.judge(images)
    assert terms["ce"] == losses.entropy(judgement.logits)
    kl = losses.gaussian_kl(*judgement.statistics, *critic.running)
    torch.testing.assert_close(terms["bn"], kl, rtol=1e-3, atol=0)


def test_the_divergence_of_gaussians_is_0_and_flat_where_they_agree():
    mean, var = torch.tensor([0.5, -1.0], requires_grad=True), torch.tensor([0.2, 3.0], requires_grad=True)
    value = losses.gaussian_kl(mean, var, mean.detach(), var.detach())
    value.backward()
    assert value.item() == 0 and mean.grad.abs().max() == 0 and var.grad.abs().max() == 0


def test_a_dead_channel_of_the_teacher_is_no_division_by_0():
    given = parts()
    given.critic.running.var[0] = 0.0
    batch = dfq.Method(replace(CONFIG, prior="gaussian"), given).synthesize(student(), LoopState())
    assert batch.losses["bn"].isfinite() and batch.skipped == 0


def test_a_teacher_without_statistics_asks_for_smooth_images():
    plain = normalized()
    for name in ("1", "4"):
        setattr(plain.network, name, torch.nn.Identity())
    given = parts()._replace(critic=Critic(plain))
    assert {"tv", "ce", "balance", "adv"} == dfq.Method(CONFIG, given).synthesize(student(), LoopState()).losses.keys()


def test_the_student_sees_images_by_running_statistics_if_asked_to():
    batches = {}
    for settled in (False, True):
        method = dfq.Method(replace(CONFIG, settled=settled), parts())
        batches[settled] = next(method.replay(MemoryBank(8, SHAPE), 1)).images
        assert method.generator.network.training
    assert not torch.equal(batches[False], batches[True])


def test_the_learning_rate_falls_to_0_if_asked_to():
    method = dfq.Method(replace(CONFIG, anneal=True), parts())
    rates = []
    for epoch in (0, 2, 4):
        method.synthesize(student(), LoopState(epochs=4, epoch=epoch))
        rates.append(method.generator.descent.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-3, 5e-4, 0])


def test_the_generator_of_the_other_implementation_gives_normalized_pixels():
    shape, teacher = ImageShape(3, 32, 32), normalized()
    generator = dfq.Native(512, shape, 64, teacher)
    assert sum(parameter.numel() for parameter in generator.parameters()) == 5_753_859
    pixels = (dfq.Native(6, shape, 2, teacher)(torch.randn(4, 6)) - teacher.mean) / teacher.std
    torch.testing.assert_close(pixels.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(pixels.var((0, 2, 3)), torch.ones(3), rtol=1e-2, atol=0)


@pytest.mark.parametrize("shape", [SHAPE, ImageShape(1, 9, 14)], ids=str)
def test_its_images_are_clamped_for_pictures_and_left_as_they_are_for_the_student(shape):
    method = dfq.Method(replace(CONFIG, generator="native", code_size=64), parts(shape=shape))
    learner = normalized(seed=1, channels=shape.channels).eval().requires_grad_(False)
    images = method.synthesize(learner, LoopState()).images
    assert images.shape == (8, *shape) and images.min() >= 0 and images.max() <= 1
    seen = next(method.replay(MemoryBank(8, shape), 1)).images
    assert seen.min() < 0 or seen.max() > 1
