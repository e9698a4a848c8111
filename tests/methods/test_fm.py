"""FM: how a round moves the generator that is kept."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from nayer_cli.method import LoopState, SynthBatch
from nayer_cli.methods.fm import Config, Method
from tiny import normalized, parts

CONFIG = Config(batch=8, g_steps=3, code_size=6, width=2)


def student() -> torch.nn.Module:
    return normalized(seed=1).eval().requires_grad_(False)


def one_round(method: Method, **state: int) -> SynthBatch:
    return method.synthesize(student(), LoopState(**{"epoch": 1} | state))


def weights(method: Method) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in method.generator.parameters()])


def gradients(method: Method) -> Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in method.generator.parameters()])


@pytest.mark.parametrize("meta", ["fomaml", "reptile"])
def test_the_first_meta_step_is_as_long_as_all_steps_of_fitting(meta):
    method = Method(replace(CONFIG, meta=meta), parts())
    before = weights(method)
    one_round(method)
    assert (weights(method) - before).abs().max().item() == pytest.approx(3 * CONFIG.lr_g, rel=1e-4)


def test_a_meta_learning_rate_of_its_own():
    method = Method(replace(CONFIG, lr_meta=1e-4), parts())
    before = weights(method)
    one_round(method)
    assert (weights(method) - before).abs().max().item() == pytest.approx(1e-4, rel=1e-2)


def test_fomaml_sums_the_gradients_of_fitting_and_reptile_goes_its_way():
    fitted = {}
    for meta in ("fomaml", "reptile", "none"):
        method = Method(replace(CONFIG, meta=meta), parts())
        before, seen = weights(method), []
        further = method._further
        method._further = lambda way, taken, m=method, f=further, s=seen: (s.append(gradients(m)), f(way, taken))[1]
        one_round(method)
        fitted[meta] = before, weights(method), torch.stack(seen).sum(0), gradients(method)
    before, after, _, _ = fitted["none"]
    torch.testing.assert_close(fitted["fomaml"][3], fitted["fomaml"][2])
    torch.testing.assert_close(fitted["reptile"][3], 67 * (before - after))


def test_a_single_step_of_fitting_points_both_the_same_way():
    one, other = (Method(replace(CONFIG, meta=meta, g_steps=1), parts()) for meta in ("fomaml", "reptile"))
    one_round(one), one_round(other)
    assert torch.equal(gradients(one).sign(), gradients(other).sign())


def test_buffers_of_the_generator_never_change():
    method = Method(CONFIG, parts())
    before = {name: buffer.clone() for name, buffer in method.generator.named_buffers()}
    one_round(method)
    assert all(torch.equal(buffer, before[name]) for name, buffer in method.generator.named_buffers())


def test_a_step_that_is_left_out_adds_nothing_to_the_meta_gradient():
    method = Method(CONFIG, parts())
    draw, count = method._draw, iter(range(3))

    def spoiled(*arguments):
        images, judgement, terms = draw(*arguments)
        return images, judgement, terms | {"ce": terms["ce"] * (float("nan") if next(count) == 1 else 1.0)}

    method._draw = spoiled
    batch = one_round(method)
    assert batch.skipped == 1 and weights(method).isfinite().all() and gradients(method).abs().sum() > 0


def test_the_adversary_begins_with_the_student_and_faithfully_one_epoch_before():
    state = {"warmup_epochs": 3, "epoch": 2}
    assert "adv" not in one_round(Method(CONFIG, parts()), **state).losses
    assert "adv" in one_round(Method(CONFIG, parts()), **state | {"epoch": 3}).losses
    assert "adv" in one_round(Method(replace(CONFIG, faithful=True), parts()), **state).losses


def test_the_first_layer_starts_afresh_once():
    method = Method(replace(CONFIG, reset_l0=3, lr_g=0.0, lr_meta=1e-9), parts())
    torch.nn.init.constant_(method.generator.linear.bias, 1.0)
    one_round(method, warmup_epochs=1, epoch=2)
    assert method.generator.linear.bias.min() > 0.9
    others = method.generator.body[2].weight.detach().clone()
    one_round(method, warmup_epochs=1, epoch=3)
    for layer in (method.generator.linear, method.generator.body[0]):
        assert layer.bias.abs().max() < 1e-6 and layer.weight.abs().max() < 0.1
    torch.testing.assert_close(method.generator.body[2].weight, others)
    drawn = method.generator.linear.weight.detach().clone()
    one_round(method, warmup_epochs=1, epoch=3, round=1)
    torch.testing.assert_close(method.generator.linear.weight, drawn)


def test_moments_of_the_meta_adam_are_part_of_the_state():
    method = Method(CONFIG, parts())
    one_round(method)
    assert method.get_extra_state()["optimizer"]["state"]
