from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from golden_parts import computing_in
from nayer_cli import losses
from nayer_cli.bank import MemoryBank
from nayer_cli.classifiers.model import Normalized
from nayer_cli.errors import ConfigError
from nayer_cli.method import LoopState
from nayer_cli.methods.kakr import Config, Method
from nayer_cli.replay_memory import Rehearsal, Ring
from nayer_cli.runs.quantize import quantize
from nayer_cli.types import Normalization
from nayer_cli.variational import VariationalMemory
from tiny import SHAPE, normalized, parts

CONFIG = Config(code_size=6, width=2, replay=0.5, lr_in=0.3)
IMAGES = torch.rand(12, *SHAPE, generator=torch.Generator().manual_seed(0))
BATCH = Rehearsal(IMAGES, torch.full((12,), -1), 8)


def student() -> nn.Module:
    return normalized(seed=1).train().requires_grad_(True)


def learn(net: nn.Module, **settings: Any) -> tuple[Tensor, dict[str, Tensor], list[Tensor]]:
    """Return loss, terms and gradients of a student step."""
    total, terms = Method(replace(CONFIG, **settings), parts()).student_loss(net, BATCH)
    return total, dict(terms), list(torch.autograd.grad(total, list(net.parameters())))


def distance(net: nn.Module, images: Tensor) -> Tensor:
    return losses.logit_l1(parts().critic.logits(images), net(images))


def test_the_memory_is_a_ring_or_a_vae():
    bank, generative = (Method(replace(CONFIG, memory=memory), parts()) for memory in ("bank", "generative"))
    assert isinstance(bank.memory, Ring) and bank.store is bank.memory.store and bank.own_rows() == ["memory.last"]
    assert isinstance(generative.memory, VariationalMemory) and generative.store is None
    assert "vae" in generative.synthesize(student().eval(), LoopState()).losses
    assert [len(batch) for batch in generative.replay(MemoryBank(8, SHAPE), 2)] == [12, 12]
    assert [len(batch) for batch in bank.replay(MemoryBank(8, SHAPE), 2)] == [8, 8]


def test_fresh_images_alone_are_learned_as_ever():
    batch = Rehearsal(IMAGES[:8], torch.full((8,), -1), 8)
    assert Method(CONFIG, parts()).student_loss(student(), batch) == distance(student(), IMAGES[:8])


def test_detached_it_is_the_loss_of_mb_dfkd_with_a_constant():
    net = student()
    total, terms, gradients = learn(net, meta="detached")
    expected = torch.autograd.grad(distance(net, IMAGES), list(net.parameters()))
    assert total == terms["ahead"] + terms["l1"] and not terms["ahead"].requires_grad
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(gradients, expected, strict=True))


def test_with_a_step_of_length_0_remembered_images_count_twice():
    total, *_ = learn(student(), lr_in=0.0)
    torch.testing.assert_close(total, distance(student(), IMAGES[8:]) + distance(student(), IMAGES))


def test_orders_differ_in_their_gradients_alone():
    (full, _, second), (same, _, first), (also, _, detached) = (
        learn(student(), meta=meta) for meta in ("second", "first", "detached")
    )
    torch.testing.assert_close(full, same)
    torch.testing.assert_close(full, also)
    flat = [torch.cat([each.flatten() for each in gradients]) for gradients in (second, first, detached)]
    assert not torch.allclose(flat[0], flat[1]) and not torch.allclose(flat[1], flat[2])
    assert torch.cosine_similarity(flat[0], flat[1], dim=0) > 0.5


def test_running_statistics_move_as_by_one_pass_over_all_images():
    net, plain = student(), student()
    learn(net)
    plain(IMAGES)
    for (name, mine), theirs in zip(net.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(mine, theirs), name


def test_the_gradient_is_that_of_finite_differences():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.Tanh(), nn.Linear(5, 4))
    net = Normalized(layers, Normalization((0.5,) * 3, (0.25,) * 3)).double()
    method = Method(CONFIG, parts())
    t = method.parts.critic.logits(IMAGES).double()
    batch = Rehearsal(IMAGES.double(), BATCH.labels, 8)
    method.parts.critic.logits = lambda images: t

    def total(weight: Tensor) -> Tensor:
        net.network[3].weight.data.copy_(weight)
        return method.student_loss(net, batch).total

    weight = net.network[3].weight.detach().clone()
    with computing_in(torch.float64):
        total(weight).backward()
        step = 1e-6 * torch.randn_like(weight)
        slope = (total(weight + step) - total(weight - step)) / 2
    assert slope.item() == pytest.approx((net.network[3].weight.grad * step).sum().item(), rel=1e-5)


def test_a_compiled_student_learns_the_same():
    plain, compiled = student(), student()
    compiled.network.compile(backend="aot_eager")
    for mine, theirs in zip(learn(compiled)[2], learn(plain)[2], strict=True):
        torch.testing.assert_close(mine, theirs)


def test_weights_that_an_image_does_not_reach_are_decayed_alone():
    net = student()
    net.unused = nn.Parameter(torch.ones(3))
    total, _ = Method(CONFIG, parts()).student_loss(net, BATCH)
    total.backward()
    assert net.unused.grad is None or torch.equal(net.unused.grad, torch.zeros(3))
    assert functional_call(net, dict(net.named_parameters()), (IMAGES,)).isfinite().all()


def test_a_student_that_rounds_is_refused_before_anything_is_loaded():
    with pytest.raises(ConfigError, match="kakr differentiates its student twice"):
        quantize({"method.name": "kakr", "teacher.name": "no-such-network"})
