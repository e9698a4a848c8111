"""SpaceshipNet against numbers that its released functions computed in float64."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from golden_parts import computing_in
from nayer_cli.classifiers.model import Normalized
from nayer_cli.critic import Critic
from nayer_cli.method import Batch
from nayer_cli.methods.spaceship import Config, Method, exchanged, halves
from nayer_cli.regions import Gaze
from nayer_cli.types import Normalization
from tiny import parts

AS_IT_IS = Normalization((0.0,) * 3, (1.0,) * 3)
LAYERS = ("conv1", "bn1", "", "conv2", "bn2", "", "", "", "fc")


def network(golden: dict[str, Tensor], role: str) -> Normalized:
    """The network of that role: two convolutions with BatchNorm and ReLU, pooling, a linear layer."""
    width = len(golden[f"{role}.conv1.weight"])
    layers = nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    ).double()
    state = {ours: golden.get(f"{role}.{theirs(ours)}", value) for ours, value in layers.state_dict().items()}
    layers.load_state_dict(state)
    return Normalized(layers, AS_IT_IS)


def theirs(name: str) -> str:
    number, _, rest = name.partition(".")
    return f"{LAYERS[int(number)]}.{rest}"


def test_loss_and_gradients_of_the_student(shared: Path) -> None:
    golden = load_file(shared / "golden" / "spaceship.safetensors")
    student = network(golden, "student").train()
    with computing_in(torch.float64):
        given = parts(classes=5)._replace(critic=Critic(network(golden, "teacher")))
        method = Method(Config(code_size=6, width=2, capacity=8), given)
        loss = method.student_loss(student, Batch(golden["images.normalized"], torch.zeros(10)))
        loss.total.backward()
    wanted = {"kl": golden["loss.kl"], "cam": golden["loss.cam"], "gradcam": golden["loss.gradcam"].sum()}
    assert {name: value.item() for name, value in loss.terms.items()} == pytest.approx(
        {name: value.item() for name, value in wanted.items()}, abs=1e-10
    )
    for name, parameter in student.network.named_parameters():
        torch.testing.assert_close(parameter.grad, golden[f"gradient.{theirs(name)}"], rtol=0, atol=1e-10)


def test_maps(shared: Path) -> None:
    golden = load_file(shared / "golden" / "spaceship.safetensors")
    images = golden["images.normalized"].requires_grad_()
    teacher, student = network(golden, "teacher").eval(), network(golden, "student").train()
    with computing_in(torch.float64):
        aim, own = Gaze(teacher)(teacher, images), Gaze(student)(student, images)
        found = {"cam": [own.class_maps(aim)], "gradcam": list(own.regions(aim))}
    for name, pairs in found.items():
        for number, pair in enumerate(pairs):
            suffix = f".{number}" if name == "gradcam" else ""
            for role, ours in zip(("student", "teacher"), pair, strict=True):
                torch.testing.assert_close(ours, golden[f"{name}.{role}{suffix}"], rtol=0, atol=1e-10)


def test_exchange(shared: Path) -> None:
    golden = json.loads((shared / "golden" / "spaceship_exchange.json").read_text())
    own = torch.tensor(golden["from_own"])
    count, channels = own.shape
    features = torch.arange(count * channels).view(count, channels, 1, 1)
    mixed = exchanged(features, own)
    assert torch.equal(mixed == features, own[:, :, None, None])
    assert torch.equal(mixed == features.flip(0), torch.tensor(golden["from_partner(B-1-i)"])[:, :, None, None])
    drawn = halves(count, channels, torch.Generator().manual_seed(0))
    assert drawn.sum(1).tolist() == golden["own_channels_each"]
