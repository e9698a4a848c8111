"""SpaceshipNet against numbers that its released functions computed in float64."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from golden_parts import computing_in
from nayer_cli.classifiers.model import Normalized
from nayer_cli.method import Batch
from nayer_cli.methods.spaceship import Config, Method, exchanged, halves
from nayer_cli.regions import Gaze
from released import classifier, golden, released_parts


def student_and_images(given: dict[str, Tensor]) -> tuple[Normalized, Tensor]:
    student = classifier(given, "student").requires_grad_(True).train()
    return student, given["images.normalized"] * student.std + student.mean


def test_loss_and_gradients_of_the_student(shared: Path) -> None:
    given = golden(shared, "spaceship")
    with computing_in(torch.float64):
        student, images = student_and_images(given)
        method = Method(Config(code_size=6, width=2, capacity=8), released_parts(given))
        loss = method.student_loss(student, Batch(images, torch.zeros(10)))
        loss.total.backward()
    wanted = {"kl": given["loss.kl"], "cam": given["loss.cam"], "gradcam": given["loss.gradcam"].sum()}
    for name, value in wanted.items():
        assert loss.terms[name].item() == pytest.approx(value.item(), abs=1e-10)
    for name, parameter in student.network.named_parameters():
        torch.testing.assert_close(parameter.grad, given[f"gradient.{name}"], rtol=0, atol=1e-10)


def test_maps(shared: Path) -> None:
    given = golden(shared, "spaceship")
    with computing_in(torch.float64):
        student, images = student_and_images(given)
        teacher = classifier(given, "teacher")
        aim, own = Gaze(teacher)(teacher, images.requires_grad_()), Gaze(student)(student, images)
        found = {"cam": own.class_maps(aim)}
        found |= {f"gradcam.{number}": pair for number, pair in enumerate(own.regions(aim))}
    assert list(found) == ["cam", "gradcam.0", "gradcam.1"]
    for name, pair in found.items():
        for role, maps in zip(("student", "teacher"), pair, strict=True):
            wanted = given[".".join([(parts := name.split("."))[0], role, *parts[1:]])]
            torch.testing.assert_close(maps, wanted, rtol=0, atol=1e-10)


def test_exchange(shared: Path) -> None:
    given = json.loads((shared / "golden" / "spaceship_exchange.json").read_text())
    own = torch.tensor(given["from_own"])
    count, channels = own.shape
    features = torch.arange(count * channels).view(count, channels, 1, 1)
    mixed = exchanged(features, own)
    assert torch.equal(mixed == features, own[:, :, None, None])
    assert torch.equal(mixed == features.flip(0), torch.tensor(given["from_partner(B-1-i)"])[:, :, None, None])
    assert halves(count, channels, torch.Generator().manual_seed(0)).sum(1).tolist() == given["own_channels_each"]
