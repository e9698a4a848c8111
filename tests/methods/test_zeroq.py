from dataclasses import replace

import pytest
import torch

from nayer_cli.classifiers.model import Normalized
from nayer_cli.critic import Critic
from nayer_cli.errors import InputError
from nayer_cli.method import LoopState
from nayer_cli.methods.zeroq import Config, Method, PlateauRate, sample_distance
from nayer_cli.types import Normalization
from tiny import SHAPE, parts

CONFIG = Config(batch=8, g_steps=2)


def test_statistics_are_those_of_each_image_and_not_of_the_batch():
    x = torch.stack([torch.zeros(1, 4, 4), torch.full((1, 4, 4), 2.0)])  # the batch has mean 1 and deviation 1
    assert sample_distance(x, torch.ones(1), torch.zeros(1)).item() == pytest.approx(1.0, abs=1e-3)
    image = torch.tensor([[[[0.0, 2.0]]]])
    assert sample_distance(image, torch.ones(1), torch.full((1,), 2**0.5)).item() == pytest.approx(0.0, abs=1e-6)


def test_a_single_position_has_a_mean_and_no_deviation():
    x = torch.tensor([3.0, 1.0]).view(2, 1, 1, 1).requires_grad_(True)
    distance = sample_distance(x, torch.ones(1), torch.ones(1))
    distance.backward()
    assert distance.item() == pytest.approx(2.0)
    assert x.grad.isfinite().all()


def test_images_may_be_asked_for_classes_too():
    method = Method(replace(CONFIG, g_steps=150, ce=100.0), parts())
    made = method.synthesize(torch.nn.Identity(), LoopState())
    plain = Method(replace(CONFIG, g_steps=150), parts()).synthesize(torch.nn.Identity(), LoopState())
    assert "ce" in made.losses and "ce" not in plain.losses
    confidence = [method.parts.critic.logits(batch.images).softmax(1).amax(1).mean() for batch in (made, plain)]
    assert confidence[0] > confidence[1]


def test_the_rate_falls_as_that_of_torch_does():
    parameter = torch.nn.Parameter(torch.zeros(()))
    theirs = torch.optim.SGD([parameter], lr=0.5)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, patience=3, min_lr=1e-2)
    ours = PlateauRate(0.5, 1e-2, 3, torch.device("cpu"))
    for loss in [5.0, 4.0, 4.1, 3.9999, 4.0, 4.2, 3.0, *[3.0] * 20]:
        scheduler.step(loss)
        ours.update(torch.tensor(loss))
        assert ours.value.item() == pytest.approx(theirs.param_groups[0]["lr"])
    assert ours.value.item() == pytest.approx(1e-2)


def test_more_steps_bring_the_statistics_of_the_finished_images_nearer():
    def distance(steps: int) -> float:
        method = Method(replace(CONFIG, g_steps=steps), parts())
        teacher = method.parts.critic.teacher
        images = method.synthesize(torch.nn.Identity(), LoopState()).images
        return method._judge((images - teacher.mean) / teacher.std, teacher.mean, teacher.std)["bn"].item()

    assert distance(60) < 0.5 * distance(1)


def test_labels_are_what_the_teacher_sees():
    method = Method(CONFIG, parts())
    batch = method.synthesize(torch.nn.Identity(), LoopState())
    assert torch.equal(batch.labels, method.parts.critic.logits(batch.images).argmax(1))


def test_a_teacher_without_statistics_is_refused():
    bare = Normalized(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(4)), Normalization((0.5,), (0.25,)))
    bare(torch.rand(2, *SHAPE))
    with pytest.raises(InputError, match="BatchNorm"):
        Method(CONFIG, parts()._replace(critic=Critic(bare)))
