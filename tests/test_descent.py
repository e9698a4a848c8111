from collections.abc import Callable, Iterator
from copy import deepcopy

import pytest
import torch
from torch import nn

from nayer_cli.descent import Descent, Follower, LossScale, RoundParameter
from nayer_cli.machine.distributed import Group
from nayer_cli.machine.precision import Precision

NAN, INF = float("nan"), float("inf")
OPTIMIZERS: dict[str, Callable[[nn.Parameter], torch.optim.Optimizer]] = {
    "sgd": lambda weight: torch.optim.SGD([weight], lr=0.1, fused=True),
    "momentum": lambda weight: torch.optim.SGD([weight], lr=0.1, momentum=0.9, weight_decay=0.1, fused=True),
    "adam": lambda weight: torch.optim.Adam([weight], lr=0.1, fused=True),
}


@pytest.fixture(autouse=True)
def nan_in_fresh_memory() -> Iterator[None]:
    """Memory that nobody has written to holds NaN, as torch fills it in this mode."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def descent(name: str, max_norm: float | None = None) -> tuple[nn.Parameter, Descent]:
    weight = nn.Parameter(torch.tensor([1.0, -2.0]))
    return weight, Descent(OPTIMIZERS[name](weight), Precision(), Group(), max_norm)


def steps(name: str, losses: list[float], max_norm: float | None = None) -> tuple[torch.Tensor, float]:
    """The weight after steps on losses that a factor may make infinite or NaN, and how many steps were left out."""
    weight, down = descent(name, max_norm)
    for factor in losses:
        down.step((weight.square() * factor).sum())
    return weight.detach(), float(down.skipped)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("bad", [NAN, INF])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_step_that_is_left_out_is_as_if_it_had_never_been(name: str, bad: float, at: int) -> None:
    losses = [1.0, 2.0, 3.0]
    expected, _ = steps(name, losses)
    weight, skipped = steps(name, [*losses[:at], bad, *losses[at:]])
    assert torch.equal(weight, expected) and skipped == 1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_steps_are_those_of_the_optimizer_alone(name: str) -> None:
    weight = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = OPTIMIZERS[name](weight)
    for factor in (1.0, 2.0):
        optimizer.zero_grad()
        (weight.square() * factor).sum().backward()
        optimizer.step()
    assert torch.equal(weight.detach(), steps(name, [1.0, 2.0])[0])


def test_a_gradient_that_is_not_finite_is_noticed_where_the_loss_is() -> None:
    weight, down = descent("momentum")
    down.step((weight - weight.detach()).abs().sqrt().sum())  # 0, with an infinite slope
    assert torch.equal(weight.detach(), torch.tensor([1.0, -2.0])) and down.skipped == 1


def test_a_long_gradient_is_shortened() -> None:
    weight, _ = steps("sgd", [100.0], max_norm=1.0)
    assert (weight - torch.tensor([1.0, -2.0])).norm().item() == pytest.approx(0.1)
    weight, skipped = steps("sgd", [INF, 0.0], max_norm=1.0)
    assert torch.equal(weight, torch.tensor([1.0, -2.0])) and skipped == 1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_goes_on_from_its_state(name: str) -> None:
    weight, down = descent(name)
    for factor in (1.0, NAN, 2.0):
        down.step((weight.square() * factor).sum())
    again, resumed = descent(name)
    again.data.copy_(weight.data)
    resumed.load_state_dict(deepcopy(down.state_dict()))
    for one, other in ((weight, down), (again, resumed)):
        other.step(one.square().sum())
    assert torch.equal(weight, again)


def test_the_loss_scale_is_halved_by_bad_steps_and_doubled_by_many_good_ones() -> None:
    scale = LossScale(torch.device("cpu"))
    factors = []
    for bad in [0.0] * (LossScale.PATIENCE - 1) + [1.0] + [0.0] * LossScale.PATIENCE:
        scale.update(torch.tensor(bad))
        factors.append(float(scale.factor))
    assert factors[LossScale.PATIENCE - 2 :: LossScale.PATIENCE] == [2.0**12, 2.0**11]
    assert factors[LossScale.PATIENCE - 1] == 2.0**11 and factors[-1] == 2.0**12


def test_a_scaled_loss_leads_to_the_same_step() -> None:
    weights = []
    for precision in (Precision(), Precision("cpu", torch.float16)):
        weight = nn.Parameter(torch.tensor([1.0, -2.0]))
        down = Descent(OPTIMIZERS["adam"](weight), precision, Group(), max_norm=1.0)
        for factor in (1.0, NAN, 2.0):
            down.step((weight.square() * factor).sum())
        weights.append(weight.detach())
    assert torch.equal(*weights)


def test_processes_have_nothing_to_tell_each_other_of_parameters_of_one_round() -> None:
    pixels = RoundParameter(torch.tensor([1.0, -2.0]))
    alone = Descent(OPTIMIZERS["sgd"](pixels), Precision(), Group(rank=0, size=2))  # there is no other: a message fails
    assert alone.step(pixels.square().sum())
    torch.testing.assert_close(pixels.detach(), torch.tensor([0.8, -1.6]))


def test_gradients_from_elsewhere_are_followed_and_left_out_where_not_finite():
    weight = nn.Parameter(torch.tensor([1.0, -2.0]))
    down = Follower(OPTIMIZERS["sgd"](weight))
    assert down.follow([torch.tensor([1.0, 2.0])])
    torch.testing.assert_close(weight.detach(), torch.tensor([0.9, -2.2]))
    assert not down.follow([torch.tensor([NAN, 2.0])]) and down.skipped == 1
    torch.testing.assert_close(weight.detach(), torch.tensor([0.9, -2.2]))
