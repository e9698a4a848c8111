import pytest
import torch

from nayer_cli.activations import Activations, PerNetwork, Staged, common, named_layers
from nayer_cli.critic import Critic
from nayer_cli.errors import ConfigError
from tiny import SHAPE, network, normalized

IMAGES = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0))


def test_only_calls_through_it_are_read_in_order_of_execution():
    net = network()
    seen = Activations([net[2], net[0]], lambda layer, x, y: y)
    net(IMAGES)
    result, activations = seen(net, IMAGES)
    assert torch.equal(result, net(IMAGES))
    assert [layer for layer, _ in activations] == [net[0], net[2]]
    assert torch.equal(activations[1][1], net[:3](IMAGES))


def test_a_call_that_fails_leaves_no_trace():
    net = network()
    seen = Activations([net[0]], lambda layer, x: x, before=True)
    with pytest.raises(RuntimeError):
        seen(net, IMAGES[:, :1])
    net(IMAGES)
    assert len(seen(net, IMAGES)[1]) == 1


def test_layers_are_found_by_the_names_that_users_know():
    wrapped = normalized()
    assert named_layers(wrapped, ["0", "network.3"]) == [wrapped.network[0], wrapped.network[3]]
    with pytest.raises(ConfigError, match="no module 'stem'"):
        named_layers(wrapped, ["stem"])


def test_each_network_gets_its_own_once():
    made = PerNetwork(Staged)
    one, other = network(), network()
    assert made(one) is made(one) and made(one) is not made(other)


ORDERS = {
    "asked before compiling": ["plain", "statistics", "stages", "train", "plain", "eval", "plain", "stages"],
    "asked after": ["stages", "plain", "statistics"],
}


@pytest.mark.parametrize("order", ORDERS)
def test_a_compiled_network_loses_none(order: str) -> None:
    torch.compiler.reset()
    model, expected = normalized(), normalized()
    wanted = Critic(expected).judge(IMAGES).statistics
    _, wanted_stages = Staged(expected)(expected, IMAGES)
    critic, staged = (None, None) if order == "asked after" else (Critic(model), Staged(model))
    model.network.compile(backend="eager")
    for step in ORDERS[order]:
        if step == "plain":
            model(IMAGES)
        elif step in ("train", "eval"):
            model.train(step == "train")
            model.network[1].momentum = model.network[4].momentum = 0.0  # running statistics stay as they are
        elif step == "statistics":
            critic = critic or Critic(model)
            torch.testing.assert_close(critic.judge(IMAGES).statistics, wanted)
        else:
            staged = staged or Staged(model)
            pairs = common(staged(model, IMAGES)[1], wanted_stages)
            assert len(pairs) == 2
            torch.testing.assert_close(*map(list, zip(*pairs, strict=True)))
