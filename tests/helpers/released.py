"""The tiny networks of `shared/golden`, on which the released code of other methods ran in float64."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from golden_parts import NORMALIZATION
from nayer_cli.augment import Augment
from nayer_cli.classifiers.model import Normalized
from nayer_cli.critic import Critic
from nayer_cli.machine.distributed import Group
from nayer_cli.machine.interruption import Interruption
from nayer_cli.machine.precision import Precision
from nayer_cli.machine.rng import Streams
from nayer_cli.method import Parts
from nayer_cli.types import ImageShape

Tensors = dict[str, Tensor]


def golden(shared: Path, name: str) -> Tensors:
    """Return what a released program was given and what it computed."""
    return load_file(shared / "golden" / f"{name}.safetensors")


def below(tensors: Mapping[str, Tensor], prefix: str) -> Tensors:
    """Tensors whose names begin with `prefix.`, without it."""
    return {name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(f"{prefix}.")}


def classifier(tensors: Mapping[str, Tensor], role: str) -> Normalized:
    """Return the `teacher` or the `student` of a file, frozen and in evaluation mode."""
    state = below(tensors, role)
    channels, width = len(state["conv1.weight"]), len(state["conv2.weight"])
    layers: list[tuple[str, nn.Module]] = [
        ("conv1", nn.Conv2d(3, channels, 3, padding=1, bias=False)),
        ("bn1", nn.BatchNorm2d(channels)),
        ("relu1", nn.ReLU()),
        ("conv2", nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False)),
        ("bn2", nn.BatchNorm2d(width)),
        ("relu2", nn.ReLU()),
        ("pool", nn.AdaptiveAvgPool2d(1)),
        ("flatten", nn.Flatten()),
        ("fc", nn.Linear(width, len(state["fc.bias"]))),
    ]
    network = nn.Sequential(OrderedDict(layers)).to(state["fc.bias"].dtype)
    load(network, state)
    return Normalized(network.requires_grad_(False).eval(), NORMALIZATION)


def generator_state(tensors: Mapping[str, Tensor], prefix: str) -> Tensors:
    """State of a released generator under the names of our `shallow`."""
    return {
        name.replace("l1.0", "linear").replace("conv_blocks", "body"): value
        for name, value in below(tensors, prefix).items()
    }


def load(network: nn.Module, state: Tensors) -> None:
    """Load all of a state; the files do not count batches."""
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing)


def released_parts(tensors: Mapping[str, Tensor], batch: int = 10) -> Parts:
    """Everything that a method is given, with the teacher of a file; images are not augmented."""
    return Parts(
        critic=Critic(classifier(tensors, "teacher")),
        pool=torch.zeros(5, 0),
        shape=ImageShape(3, 8, 8),
        augment=Augment(pad=0, flip=False),
        rng=Streams(0),
        precision=Precision(),
        batch_size=batch,
        group=Group(),
        interruption=Interruption(Group()),
    )


def assert_as_released(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Compare a state after steps of Adam: within 1e-6 of the largest entry of each tensor.

    What is below 1e-12, such as the gradient of a bias before BatchNorm, is 0 but for rounding.
    """
    for name, value in expected.items():
        scale = value.abs().max().item()
        torch.testing.assert_close(actual[name], value, rtol=0, atol=max(1e-6 * scale, 1e-12), msg=name)
