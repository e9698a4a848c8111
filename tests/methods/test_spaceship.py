from dataclasses import replace

import pytest
import torch
from torch import nn

from nayer_cli.bank import MemoryBank
from nayer_cli.classifiers.model import Normalized
from nayer_cli.critic import Critic
from nayer_cli.errors import ConfigError, InputError
from nayer_cli.generator import Generator
from nayer_cli.losses import distillation_kl
from nayer_cli.method import Batch, LoopState, Parts
from nayer_cli.methods.spaceship import Config, Method, exchanged, halves
from nayer_cli.types import ImageShape, Normalization
from tiny import SHAPE, normalized, parts

CONFIG = Config(batch=6, g_steps=2, code_size=6, width=2, capacity=8)
BANK = MemoryBank(8, SHAPE)
IMAGES = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0))
BATCH = Batch(IMAGES, torch.full((4,), -1))


def student(width: int = 3) -> nn.Module:
    return normalized(seed=1, width=width)


def filled(config: Config = CONFIG, given: Parts | None = None) -> Method:
    """A method after one round."""
    method = Method(config, given or parts())
    batch = method.synthesize(student().eval().requires_grad_(False), LoopState())
    method.store.push(batch.rows)
    return method


def test_a_round_keeps_the_features_of_its_images_in_sixteen_bits():
    store = filled().store
    assert len(store) == 6 and store.capacity == 8
    assert {name: (tuple(own.shape[1:]), own.dtype) for name, own in store.tensors.items()} == {
        "f0": ((4, 2, 2), torch.float16),
        "f1": ((4, 4, 4), torch.float16),
        "f2": ((2, 8, 8), torch.float16),
    }
    assert list(filled(replace(CONFIG, features="first")).store.tensors) == ["f0"]


def test_the_student_has_no_part_in_a_round():
    without = Method(replace(CONFIG, cam=0, gradcam=0), parts()).synthesize(nn.Identity(), LoopState())
    assert torch.equal(without.images, Method(CONFIG, parts()).synthesize(student().eval(), LoopState()).images)


@pytest.mark.parametrize("features", ["all", "first"])
def test_without_exchange_stored_features_become_the_images_again(features):
    method = Method(replace(CONFIG, exchange=0, features=features), parts(batch_size=8))
    method.generator.eval()
    with torch.no_grad():
        maps, images = method.generator.draw(torch.randn(8, 6))
    method.store.push(dict(method._rows(maps)))
    for _ in range(6):  # whatever stage is drawn
        again = method._decode()
        assert all((images - one).abs().amax((1, 2, 3)).min() < 2e-3 for one in again)


def test_with_exchange_they_become_others():
    kept, mixed = (filled(replace(CONFIG, exchange=share)) for share in (0.0, 1.0))
    first, second = (next(method.replay(BANK, 1)).images for method in (kept, mixed))
    assert first.shape == second.shape == (8, *SHAPE) and not torch.equal(first, second)


def test_half_of_the_channels_of_each_image_come_from_its_partner():
    features, generator = torch.arange(20.0).view(5, 4, 1, 1), torch.Generator().manual_seed(0)
    own = halves(5, 4, generator)
    assert own.sum(1).tolist() == [2] * 5 and not torch.equal(own, halves(5, 4, generator))
    mixed = exchanged(features, own)
    assert all(mixed[i, c] == features[i if own[i, c] else 4 - i, c] for i in range(5) for c in range(4))


def test_images_that_were_given_are_shown_until_there_are_features():
    bank = MemoryBank(8, SHAPE)
    bank.add(torch.rand(8, *SHAPE), torch.zeros(8, dtype=torch.long), torch.Generator())
    assert next(Method(CONFIG, parts()).replay(bank, 1)).labels.tolist() == [0] * 8


def test_a_student_that_equals_the_teacher_has_nothing_to_learn():
    loss = Method(CONFIG, parts()).student_loss(normalized(), BATCH)
    assert loss.total.abs() < 1e-6 and set(loss.terms) == {"kl", "cam", "gradcam"}


def test_maps_teach_the_classifier_nothing():
    config, net = replace(CONFIG, kl=0), student(width=6).train()
    Method(config, parts()).student_loss(net, BATCH).total.backward()
    head = net.network[8]
    assert not head.weight.grad.any() and not head.bias.grad.any()
    assert net.network[0].weight.grad.abs().sum() > 0


def test_without_maps_the_loss_is_distillation_alone():
    method, net = Method(replace(CONFIG, cam=0, gradcam=0), parts()), student()
    loss = method.student_loss(net, BATCH).total
    wanted = distillation_kl(method.parts.critic.logits(IMAGES), net(IMAGES), 30) / 4
    assert loss.item() == pytest.approx(wanted.item())


def test_a_compiled_network_is_looked_into_as_well():
    torch.compiler.reset()
    wanted = Method(CONFIG, parts()).student_loss(student(), BATCH).total
    method, net = Method(CONFIG, parts()), student()
    for network in (net.network, method.parts.critic.teacher.network):
        network.compile(backend="aot_eager")
    method.student_loss(net, BATCH).total.backward()
    assert method.student_loss(net, BATCH).total.item() == pytest.approx(wanted.item())


def test_networks_without_common_maps_are_refused_and_learn_without_comparing_them():
    flat = Normalized(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), Normalization((0.5,) * 3, (0.25,) * 3))
    with pytest.raises(InputError, match="the teacher has no feature maps"):
        Method(CONFIG, parts()._replace(critic=Critic(flat)))
    with pytest.raises(InputError, match="no feature maps of the same size"):
        Method(CONFIG, parts()).synthesize(flat, LoopState())
    config = replace(CONFIG, cam=0, gradcam=0)
    assert Method(config, parts()).student_loss(flat, BATCH).total.isfinite()


class Plain(Generator):
    """A generator of somebody who knows nothing of stages."""

    def __init__(self, code_size: int, shape: ImageShape, width: int) -> None:
        super().__init__(code_size, shape)


def test_a_generator_without_stages_is_refused(monkeypatch):
    monkeypatch.setattr("nayer_cli.methods.spaceship.new_generator", lambda name, *rest: Plain(*rest))
    with pytest.raises(ConfigError, match="has no stages"):
        Method(CONFIG, parts())


def test_a_store_on_the_host_gives_the_same_features():
    here, there = (filled(replace(CONFIG, place=place)) for place in ("device", "host"))
    assert torch.equal(*(next(method.replay(BANK, 1)).images for method in (here, there)))


def test_features_take_the_memory_that_is_told():
    given = parts(shape=ImageShape(3, 32, 32))
    store = Method(Config(capacity=1), given).store
    assert sum(own.nbytes for own in store.tensors.values()) == Method.bytes_kept
