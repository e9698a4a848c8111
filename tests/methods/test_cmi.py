"""CMI: the queue of features, the contrast to it, and what is left without it."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from nayer_cli.classifiers.model import Normalized
from nayer_cli.critic import Critic
from nayer_cli.errors import InputError
from nayer_cli.generator import redraw_all
from nayer_cli.method import LoopState, SynthBatch
from nayer_cli.methods import cmi, fm
from nayer_cli.methods.cmi import Config, Method
from nayer_cli.types import Normalization
from tiny import network, normalized, parts

CONFIG = Config(batch=8, g_steps=2, head_size=4, queue=24, code_size=6, width=2)


def one_round(method: Method, epoch: int = 1) -> SynthBatch:
    batch = method.synthesize(normalized(seed=1).eval().requires_grad_(False), LoopState(epoch=epoch))
    if method.store is not None:
        method.store.push(batch.rows)
    return batch


def with_teacher(layers: nn.Module) -> object:
    return parts()._replace(critic=Critic(Normalized(layers.eval(), Normalization((0.5,) * 3, (0.25,) * 3))))


def test_the_queue_holds_the_newest_features():
    method, made = Method(CONFIG, parts()), []
    for number in range(7):
        made.append(one_round(method).rows["local"])
        assert len(method.store) == min(8 * (number + 1), 24)
    held = method.store.read(method.store.by_age())
    assert torch.equal(held["local"], torch.cat(made[-3:])) and held["whole"].shape == (24, 12)
    assert not held["local"].requires_grad


def test_with_processes_each_queues_its_share():
    given = parts()
    given.group.size = 4
    assert Method(CONFIG, given).store.capacity == 6


def test_the_contrast_asks_neither_in_which_order_the_queue_is_nor_for_more_than_it_may():
    method = Method(CONFIG, parts())
    one_round(method), one_round(method)
    contrast, images = method.contrast, torch.rand(8, 3, 8, 8)
    contrast.view = lambda images, rng: images.flip(3)

    def cr() -> float:
        return contrast(images, images)[1]["cr"].item()

    before = cr()
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    method.store.write(torch.arange(16), method.store.read(order))
    assert cr() == pytest.approx(before, rel=1e-5)
    contrast.config = replace(CONFIG, negatives=5)
    assert len(contrast._negatives()["local"]) == 5


def test_the_gradient_reaches_images_through_the_local_view_alone():
    contrast, images = Method(CONFIG, parts()).contrast, torch.rand(8, 3, 8, 8)
    local, whole = images.clone().requires_grad_(), images.clone().requires_grad_()
    contrast(local, whole)[1]["cr"].backward()
    assert local.grad.abs().sum() > 0 and whole.grad is None
    assert all(parameter.grad is not None for parameter in contrast.head.parameters())


def test_like_views_contrast_less_where_the_temperature_is_low():
    contrast, images = Method(CONFIG, parts()).contrast, torch.rand(8, 3, 8, 8)
    contrast.view, contrast.head = lambda images, rng: images, nn.Identity()
    values = []
    for tau in (0.5, 0.1, 0.02):
        contrast.config = replace(CONFIG, tau=tau)
        values.append(contrast(images, images)[1]["cr"].item())
    assert values == sorted(values, reverse=True)


def test_without_contrast_it_is_fm_that_keeps_nothing_and_asks_the_teacher_once_a_step():
    method = Method(replace(CONFIG, cr=0.0), parts())
    assert method.store is None
    asked = []
    method.parts.critic.teacher.register_forward_hook(lambda *_: asked.append(1))
    images = one_round(method).images
    assert len(asked) == CONFIG.g_steps
    weights = {name: getattr(CONFIG, name) for name in ("batch", "g_steps", "code_size", "width", "ce", "bn", "adv")}
    other = fm.Method(fm.Config(**weights, meta="none", lr_g=1e-3, lr_z=1e-3, bn_momentum=0.0), parts())
    redraw_all(other.generator, other.parts.rng.shared("generator"))
    torch.testing.assert_close(one_round(other).images, images)


def test_the_generator_starts_afresh_and_the_head_goes_on():
    method = Method(replace(CONFIG, lr_g=1e-9), parts())
    one_round(method)
    first, head = _flat(method.generator), _flat(method.contrast.head)
    one_round(method)
    assert (_flat(method.generator) - first).abs().max() > 1e-3
    torch.testing.assert_close(_flat(method.contrast.head), head)
    steps = [moments["step"].item() for moments in method.get_extra_state()["head"]["state"].values()]
    assert steps == [4.0] * 4


def test_a_continued_run_goes_on_with_moments_and_queue():
    method, again = Method(CONFIG, parts()), Method(CONFIG, parts())
    one_round(method)
    again.load_state_dict(method.state_dict())
    again.parts.rng.load_state_dict(method.parts.rng.state_dict())
    again.store.push(method.store.read(method.store.by_age()))
    assert torch.equal(one_round(again).images, one_round(method).images)


def test_the_adversary_waits_for_the_student():
    state = LoopState(warmup_epochs=2, epoch=1)
    assert "adv" not in Method(CONFIG, parts()).synthesize(normalized(seed=1), state).losses
    assert "adv" in one_round(Method(CONFIG, parts())).losses


def test_stages_take_the_place_of_batch_norm():
    layers = network()
    assert Method(replace(CONFIG, features="stages"), parts()).store.tensors["local"].shape[1] == 12
    without = nn.Sequential(*(nn.Identity() if isinstance(each, nn.BatchNorm2d) else each for each in layers))
    batch = one_round(Method(CONFIG, with_teacher(without)))
    assert {"tv", "cr"} <= batch.losses.keys() and batch.rows["local"].shape == (8, 12)


def test_many_channels_are_contrasted_by_stages(monkeypatch):
    monkeypatch.setattr(cmi, "WIDEST", 11)
    layers = nn.Sequential(*network()[:5], nn.Identity(), *network()[6:])  # a single stage
    assert Method(CONFIG, with_teacher(layers)).store.tensors["local"].shape[1] == 6


def test_a_teacher_without_features_is_refused():
    flat = with_teacher(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)))
    with pytest.raises(InputError, match="no layer whose features the term `cr`"):
        Method(CONFIG, flat)
    assert one_round(Method(replace(CONFIG, cr=0.0), flat)).images.isfinite().all()


def _flat(module: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])
