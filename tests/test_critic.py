import pytest
import torch
from torch.autograd import gradcheck

from nayer_cli.classifiers.model import Normalized
from nayer_cli.critic import Critic, Statistics, channel_statistics, layers_with_statistics
from nayer_cli.errors import InputError
from nayer_cli.machine.distributed import Group
from nayer_cli.types import Normalization
from odd_networks import NETWORKS, NORMS, OTHER_NORMS
from tiny import network, normalized


def test_statistics_are_those_of_the_inputs_of_every_batch_norm():
    critic = Critic(normalized())
    images = torch.rand(5, 3, 8, 8)
    inner = critic.teacher.network
    before_first = inner[0]((images - 0.5) / 0.25)
    before_second = inner[3](inner[2](inner[1](before_first)))
    statistics = critic.judge(images).statistics
    for index, x in enumerate((before_first, before_second)):
        part = critic.members[:, index].bool()
        torch.testing.assert_close(statistics.mean[part], x.mean((0, 2, 3)))
        torch.testing.assert_close(statistics.var[part], x.var((0, 2, 3), correction=0))


def test_the_gradient_of_the_statistics_is_exact():
    x = torch.randn(3, 2, 4, 3, dtype=torch.float64, requires_grad=True)

    def in_double(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return channel_statistics(x)

    assert gradcheck(in_double, (x,))


def test_running_statistics_are_taken_in_module_order():
    critic = Critic(normalized())
    norms = [m for m in critic.teacher.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert torch.equal(critic.running.mean, torch.cat([norm.running_mean for norm in norms]))


def test_a_critic_stays_in_evaluation_mode_and_gathers_no_gradients():
    critic = Critic(normalized()).train()
    images = torch.rand(4, 3, 8, 8, requires_grad=True)
    critic.judge(images).logits.sum().backward()
    assert not any(module.training for module in critic.modules())
    assert images.grad is not None and all(p.grad is None for p in critic.parameters())


def test_logits_do_not_pay_for_taps_and_carry_no_gradient(monkeypatch):
    critic = Critic(normalized())
    monkeypatch.setattr("nayer_cli.critic.channel_statistics", lambda x: pytest.fail("nobody asked for statistics"))
    images = torch.rand(4, 3, 8, 8, requires_grad=True)
    assert not critic.logits(images).requires_grad


def test_a_teacher_without_batch_norm_has_no_statistics():
    teacher = normalized()
    teacher.network = torch.nn.Sequential(*[m for m in network() if not isinstance(m, torch.nn.BatchNorm2d)])
    critic = Critic(teacher)
    assert not critic.has_statistics
    assert critic.judge(torch.rand(2, 3, 8, 8)).statistics.mean.numel() == 0


def critic_of(name: str) -> Critic:
    return Critic(Normalized(NETWORKS[name](), Normalization((0.5,), (0.25,))))


@pytest.mark.parametrize("name", NORMS)
def test_every_layer_with_running_statistics_is_compared_alike(name):
    images = torch.rand(5, 3, 16, 16)
    seen, expected = critic_of(name), critic_of("batch_norm")
    assert len(layers_with_statistics(seen.teacher)) == 2
    for found, wanted in zip(seen.judge(images).statistics, expected.judge(images).statistics, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", [*OTHER_NORMS, "folded"])
def test_layers_without_statistics_of_the_batch_do_not_count(name):
    assert not critic_of(name).has_statistics


def test_a_layer_that_does_not_run_is_at_rest():
    critic = critic_of("auxiliary")
    statistics = critic.judge(torch.rand(5, 3, 16, 16)).statistics
    last = critic.members[:, 2].bool()
    assert torch.equal(statistics.mean[last], critic.running.mean[last])
    assert not torch.equal(statistics.mean, critic.running.mean)


def test_statistics_belong_to_their_layer_whatever_the_order():
    critic = critic_of("reordered")
    network = critic.teacher.network
    images = torch.rand(5, 3, 16, 16)
    with torch.no_grad():
        again = network.same(network.early((images - 0.5) / 0.25))
        late = network.wide(network.early(again))
    statistics = critic.judge(images).statistics
    torch.testing.assert_close(statistics.mean, torch.cat([late.mean((0, 2, 3)), again.mean((0, 2, 3))]))


def test_a_teacher_without_gradients_cannot_judge():
    critic = critic_of("blind")
    with pytest.raises(InputError, match="carry no gradient"):
        critic.judge(torch.rand(2, 3, 16, 16, requires_grad=True))
    assert critic.judge(torch.rand(2, 3, 16, 16)).logits.shape == (2, 10)


class Halves(Group):
    """Two processes with a half of a batch each, told one after the other: means are those of what both gave."""

    def __init__(self) -> None:
        super().__init__(0, 2)
        self.given: list[torch.Tensor] = []
        self.means: list[torch.Tensor] = []

    def mean(self, tensor):
        self.given.append(tensor)
        return tensor + (self.means.pop(0) - tensor).detach() if self.means else tensor


def test_statistics_of_all_processes_keep_their_digits_beside_a_large_mean():
    rng = torch.Generator().manual_seed(0)
    values = 100 + torch.randn(2, 4000, 3, generator=rng)
    values[1] += 0.5
    halves = [Statistics(one.mean(0).requires_grad_(), one.var(0, correction=0)) for one in values]
    group = Halves()
    critic = Critic(normalized(), group)
    mean = torch.stack([one.mean for one in halves]).mean(0).detach()
    vars = [one.var + (one.mean - mean).square() for one in halves]
    group.means = [mean, torch.stack(vars).mean(0).detach()]
    found = critic._of_all(halves[0])
    exact = values.double().flatten(0, 1).var(0, correction=0).float()
    torch.testing.assert_close(found.var, exact, rtol=2e-4, atol=0)
    torch.testing.assert_close(found.mean, mean)
    torch.testing.assert_close(group.given[1], vars[0])
    (gradient,) = torch.autograd.grad(found.var.sum(), halves[0].mean)
    torch.testing.assert_close(gradient, 2 * (halves[0].mean - mean).detach())


def test_the_distance_is_that_of_a_batch_to_what_the_teacher_remembers():
    critic = Critic(normalized())
    now = critic.judge(torch.rand(5, 3, 8, 8)).statistics
    parts = [critic.members[:, layer].bool() for layer in (0, 1)]
    expected = [
        (found[part] - known[part]).norm()
        for part in parts
        for found, known in ((now.mean, critic.running.mean), (now.var, critic.running.var))
    ]
    assert critic.has_statistics is True and critic.members.shape[1] == 2
    torch.testing.assert_close(critic.distance(now), torch.stack(expected).sum())


def test_statistics_of_activations_wider_than_high_and_their_scale():
    x = torch.randn(2, 3, 1, 5, dtype=torch.float64) * 1e-4
    mean, var = channel_statistics(x)
    torch.testing.assert_close(mean, x.mean((0, 2, 3)))
    torch.testing.assert_close(var, x.var((0, 2, 3), correction=0))


def test_the_refusal_of_a_teacher_without_gradients_says_what_its_forward_must_not_use():
    class Silent(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.detach().mean((2, 3))

    critic = Critic(Normalized(Silent(), Normalization((0.5,) * 3, (0.25,) * 3)))
    with pytest.raises(InputError, match=r"^the logits of the teacher carry no gradient, so no image") as caught:
        critic.judge(torch.rand(2, 3, 4, 4, requires_grad=True))
    assert caught.value.hint == "its forward must not use no_grad, detach, numpy or rounding"
