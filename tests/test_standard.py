import pytest
import torch

from nayer_cli.classifiers.model import Normalized
from nayer_cli.generators.shallow import Generator as Shallow
from nayer_cli.standard import Standard, StandardMaker
from nayer_cli.types import ImageShape, Normalization
from nayer_cli.variational import Encoder

TEACHER = Normalized(torch.nn.Flatten(), Normalization((0.4, 0.5, 0.6), (0.2, 0.25, 0.3)))
CIFAR = ImageShape(3, 32, 32)


@pytest.mark.parametrize("spectral", [True, False])
def test_it_has_as_many_parameters_as_the_published_one(spectral):
    with torch.device("meta"):
        generator, encoder = Standard(1000, CIFAR, 64, TEACHER, spectral=spectral), Encoder(CIFAR, 1000)
    assert sum(parameter.numel() for parameter in generator.parameters()) == 8_423_939
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 4_321_872


def test_a_batch_of_its_images_has_the_teachers_mean_and_deviation():
    images = Standard(6, CIFAR, 2, TEACHER, spectral=True)(torch.randn(8, 6))
    torch.testing.assert_close(images.mean((0, 2, 3)), TEACHER.mean.flatten(), atol=1e-4, rtol=0)
    torch.testing.assert_close(images.std((0, 2, 3), correction=0), TEACHER.std.flatten(), atol=1e-2, rtol=0)


@pytest.mark.parametrize(("side", "start"), [(16, 4), (32, 8), (33, 5), (64, 8)])
def test_larger_images_begin_with_an_eighth_of_their_side(side, start):
    shape = ImageShape(3, side, side)
    generator = Standard(6, shape, 2, TEACHER, spectral=False)
    assert generator.start == (4, start, start)
    assert generator(torch.randn(2, 6)).shape == (2, *shape)


def test_weights_start_small_and_convolutions_may_be_of_norm_one():
    plain, spectral = (Standard(6, CIFAR, 2, TEACHER, spectral=on) for on in (False, True))
    assert plain.linear.weight.abs().max() <= 0.08 and plain.linear.bias.abs().max() == 0
    convolutions = [layer for layer in spectral.body if isinstance(layer, torch.nn.Conv2d)]
    assert len(convolutions) == 3
    for layer in convolutions:
        for _ in range(50):
            weight = layer.weight.detach()
        assert torch.linalg.matrix_norm(weight.flatten(1), 2) == pytest.approx(1, abs=1e-3)


def test_other_names_are_those_of_the_registry():
    assert isinstance(StandardMaker(TEACHER, spectral=True)("shallow", 6, CIFAR, 2), Shallow)


@pytest.mark.parametrize("side", [9, 32, 64, 224])
def test_the_encoder_takes_any_size(side):
    mean, log_var = Encoder(ImageShape(1, side, side), 5)(torch.randn(2, 1, side, side))
    assert mean.shape == log_var.shape == (2, 5) and mean.isfinite().all()
