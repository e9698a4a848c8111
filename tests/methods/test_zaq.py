from dataclasses import replace

import pytest
import torch
from torch import nn

from nayer_cli.activations import Staged, Stages, common
from nayer_cli.bank import MemoryBank
from nayer_cli.classifiers.model import Normalized
from nayer_cli.method import LoopState
from nayer_cli.methods.zaq import Config, Method
from nayer_cli.quant.trace import trace
from nayer_cli.types import Normalization
from tiny import SHAPE, network, normalized, parts

CONFIG = Config(code_size=6, width=2)
IMAGES = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0))


def student(width: int = 6) -> nn.Module:
    return normalized(seed=1, width=width).eval().requires_grad_(False)


@torch.no_grad()
def stages(net: nn.Module) -> Stages:
    return Staged(net)(net, IMAGES)[1]


def test_stages_are_the_last_activations_of_each_resolution():
    net = normalized()
    found = stages(net)
    assert list(found) == [(8, 8), (4, 4)]
    layers = net.network
    first = layers[:3]((IMAGES - net.mean) / net.std)
    torch.testing.assert_close(found[8, 8], first)
    torch.testing.assert_close(found[4, 4], layers[3:6](first))


def test_a_traced_network_has_the_same_stages_and_in_place_functions_are_seen_when_final():
    plain = nn.Sequential(network(), nn.Identity())  # a container that the graph never calls
    for module in plain.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True
    traced = trace(plain, SHAPE)
    normalization = Normalization((0.5,) * 3, (0.25,) * 3)
    expected, found = stages(Normalized(plain, normalization)), stages(Normalized(traced, normalization))
    assert len(common(expected, found)) == 2
    for mine, other in common(expected, found):
        assert mine.min() == 0 and torch.equal(mine, other)


def test_stages_of_other_widths_are_left_out():
    narrow = student(width=3)
    assert common(stages(normalized()), stages(narrow)) == []
    losses = Method(CONFIG, parts()).synthesize(narrow, LoopState()).losses
    assert losses["crm"] == 0 and losses["adv"] < 0 and losses["act"] < 0


def test_a_network_without_activations_has_no_stage():
    assert stages(nn.Flatten()) == {}


def test_the_generator_moves_towards_disagreement():
    method = Method(replace(CONFIG, crm=0.0, act=0.0, lr_g=1e-2), parts())
    adv = [method.synthesize(student(), LoopState()).losses["adv"].item() for _ in range(40)]
    assert sum(adv[-5:]) < sum(adv[:5])


def test_each_student_step_sees_images_of_its_own_and_of_the_generator_as_it_stands():
    method = Method(CONFIG, parts())
    method.synthesize(student(), LoopState())
    before = {name: buffer.clone() for name, buffer in method.named_buffers()}
    first, second = method.replay(MemoryBank(8, SHAPE), 2)
    assert all(torch.equal(buffer, before[name]) for name, buffer in method.named_buffers())
    assert first.images.shape == (8, *SHAPE) and not first.images.requires_grad
    assert not torch.equal(first.images, second.images)


def test_the_student_loss_is_l1_and_the_relations():
    method, same = Method(CONFIG, parts()), normalized()
    batch = next(method.replay(MemoryBank(8, SHAPE), 1))
    assert method.student_loss(same, batch).total.item() == 0
    other = student()
    l1 = (other(batch.images) - same(batch.images)).abs().mean().item()
    assert Method(replace(CONFIG, crm=0.0), parts()).student_loss(other, batch).total.item() == pytest.approx(l1)
    loss = method.student_loss(other, batch)
    assert loss.total.item() > l1 and loss.terms["l1"].item() == pytest.approx(l1)


def test_moments_of_adam_are_part_of_the_state():
    method = Method(CONFIG, parts())
    method.synthesize(student(), LoopState())
    assert method.state_dict()["generator._extra_state"]["optimizer"]["state"]
