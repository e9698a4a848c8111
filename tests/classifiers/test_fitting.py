"""Checkpoints that people have: prefixes, tied weights, other names in the same order."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_model
from torch import Tensor, nn

from nayer_cli.classifiers.fitting import load_weights
from nayer_cli.classifiers.weights import read_weights
from nayer_cli.errors import InputError


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))


def fill(path: Path, content: Any, match: str = "name", into: nn.Module | None = None) -> nn.Module:
    """Save `content`, and load it into a network with other weights."""
    if content is not None:
        torch.save(content, path)
    into = into or network(1)
    load_weights(into, read_weights(path), name="net", path=path, match=match)
    return into


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


STATE = network().state_dict()


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": {f"model.{key}": value for key, value in STATE.items()}},
        {"state_dict": {f"a.b._orig_mod.{key}": value for key, value in STATE.items()}},
        {"state_dict": {**{f"net.{key}": value for key, value in STATE.items()}, "criterion.weight": torch.ones(4)}},
        {"state_dict": STATE, "best": np.float64(93.1), "history": np.arange(3.0), "int": np.int64(3), "p": Path("x")},
        {"state_dict": STATE, "flags": np.array([True]), "small": np.float32(1), "names": np.array(["a"])},
    ],
)
def test_weights_are_found_whatever_lies_around_them(tmp_path: Path, content: Any) -> None:
    assert same(fill(tmp_path / "w.ckpt", content), network())


def test_a_prefix_that_the_network_has_more(tmp_path: Path) -> None:
    inside = nn.Sequential(OrderedDict(net=network(1)))
    assert same(fill(tmp_path / "w.pth", STATE, into=inside), network())


def test_two_networks_that_fit_are_not_guessed_from(tmp_path: Path) -> None:
    both = {f"{who}.{key}": value for who in ("student", "teacher") for key, value in STATE.items()}
    with pytest.raises(InputError, match=r"several networks that fit: student\., teacher\."):
        fill(tmp_path / "w.pth", both)


class Tied(nn.Module):
    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
        self.b.weight = self.a.weight


def test_one_name_of_a_tied_weight_is_enough(tmp_path: Path) -> None:
    save_model(Tied(0), str(tmp_path / "w.safetensors"))
    assert same(fill(tmp_path / "w.safetensors", None, into=Tied(1)), Tied(0))
    part = {key: value for key, value in Tied(0).state_dict().items() if not key.endswith(".weight")}
    with pytest.raises(InputError, match="2 missing"):
        fill(tmp_path / "w.pth", part, into=Tied(1))


def renamed() -> dict[str, Tensor]:
    return {f"x{number}": value for number, value in enumerate(STATE.values()) if value.ndim}


def test_order_is_offered_and_taken_on_request(tmp_path: Path) -> None:
    with pytest.raises(InputError) as fault:
        fill(tmp_path / "w.pth", renamed())
    assert "--match order" in str(fault.value.hint)
    assert same(fill(tmp_path / "w.pth", renamed(), "order"), network())
    turned = dict(reversed(renamed().items()))
    with pytest.raises(InputError, match=r"in order: x8 is \[5\], where 0.weight is"):
        fill(tmp_path / "w.pth", turned, "order")
    with pytest.raises(InputError) as fault:
        fill(tmp_path / "w.pth", turned)
    assert "--match" not in str(fault.value.hint)
    save_model(network(), str(tmp_path / "w.safetensors"))
    with pytest.raises(InputError, match="does not keep the order"):
        fill(tmp_path / "w.safetensors", None, "order")


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:FutureWarning")  # people have such files
def test_programs_and_whole_networks_are_called_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.jit.trace(network().eval(), torch.rand(1, 3, 4, 4)).save(str(path))  # type: ignore[no-untyped-call]
    with pytest.raises(InputError, match="is a TorchScript program") as fault:
        read_weights(path)
    assert "torch.jit.load" in str(fault.value.hint)
    torch.save(network(), path)
    with pytest.raises(InputError, match="whole pickled network") as fault:
        read_weights(path)
    assert "state_dict()" in str(fault.value.hint)
