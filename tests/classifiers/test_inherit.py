from collections import OrderedDict

import pytest
import timm
import torch
from torch import nn

import nayer_cli.classifiers.models  # noqa: F401 - registers networks
from nayer_cli.classifiers.inherit import inherit


def block(width: int, inside: int = 4) -> nn.Sequential:
    return nn.Sequential(OrderedDict(a=nn.Linear(width, inside), b=nn.BatchNorm1d(inside), c=nn.Linear(inside, width)))


def net(*stages: list[int], head: int = 3, stem: str = "stem") -> nn.Module:
    """A stem, stages of blocks with so many units inside, and a head."""
    layers = {f"stage{n}": nn.Sequential(*(block(5, inside) for inside in of)) for n, of in enumerate(stages)}
    return nn.Sequential(OrderedDict([(stem, nn.Linear(2, 5)), *layers.items(), ("head", nn.Linear(5, head))]))


def test_evenly_spaced_blocks_are_taken_whole_with_their_statistics():
    network = timm.create_model("resnet20_cifar_a", num_classes=10)
    teacher = timm.create_model("resnet56_cifar_a", num_classes=10)
    teacher.layer2[3].bn1.running_mean.fill_(7.0)
    taken = inherit(network, teacher)
    assert taken.parameters == sum(each.numel() for each in network.parameters())
    assert [taken.layers[f"layer2.{n}"] for n in range(3)] == ["layer2.0", "layer2.3", "layer2.7"]
    assert torch.equal(network.layer3[1].conv1.weight, teacher.layer3[3].conv1.weight)
    assert network.layer2[1].bn1.running_mean[0] == 7


@pytest.mark.parametrize(
    ("student", "teacher", "layers"),
    [
        (net([4, 4]), net([4, 4, 4, 4]), {"stage0.0": "stage0.1", "stage0.1": "stage0.3"}),
        (net([8, 4]), net([8, 4, 4, 6, 4]), {"stage0.0": "stage0.0", "stage0.1": "stage0.2"}),
        (net([4, 6]), net([6, 4, 6]), {"stage0.0": "stage0.1", "stage0.1": "stage0.2"}),
        (net([4], [9]), net([4, 4], [8, 8]), {"stage0.0": "stage0.1"}),
        (net([4, 4, 4]), net([4]), {"stage0.0": "stage0.0"}),
    ],
)
def test_blocks_that_fit_are_taken_in_order(student, teacher, layers):
    assert inherit(student, teacher).layers == {"stem": "stem", **layers, "head": "head"}


def test_half_a_block_is_not_taken():
    student, teacher = net([4]), net([4, 4])
    for one in teacher.stage0:
        one.c = nn.Linear(4, 6)
    before = student.stage0[0].a.weight.clone()
    assert inherit(student, teacher).layers == {"stem": "stem", "head": "head"}
    assert torch.equal(student.stage0[0].a.weight, before)


def test_tensors_beside_the_layers_are_taken_too():
    student, teacher = net([4]), net([4, 4])
    for one in (student, teacher):
        one.token = nn.Parameter(torch.rand(3))
    assert "token" in inherit(student, teacher).layers and torch.equal(student.token, teacher.token)


def test_nothing_fits_into_another_width():
    student = timm.create_model("resnet8_digits", num_classes=10)
    taken = inherit(student, timm.create_model("resnet14_digits", num_classes=10))
    assert (taken.parameters, taken.layers) == (0, {})


def test_integers_are_not_taken_for_weights_and_what_is_no_tensor_is_passed_over():
    class Counting(nn.Linear):
        def get_extra_state(self):
            return {"calls": 3}

        def set_extra_state(self, state):
            self.calls = state["calls"]

    student, teacher = nn.ModuleDict({"head": Counting(2, 2)}), nn.ModuleDict({"head": Counting(2, 2)})
    assert inherit(student, teacher).parameters == 6
    teacher["head"].weight = nn.Parameter(torch.ones(2, 2, dtype=torch.int8), requires_grad=False)
    assert inherit(student, teacher).layers == {}
