import pytest
import torch

from nayer_cli import plugins
from nayer_cli.generator import new_generator, redraw_all, redraw_first
from nayer_cli.types import ImageShape


@pytest.mark.parametrize("name", plugins.names("generators"))
@pytest.mark.parametrize("shape", [ImageShape(1, 9, 14), ImageShape(3, 32, 32)], ids=str)
def test_images_have_the_shape_and_the_range_that_were_asked_for(name: str, shape: ImageShape) -> None:
    images = new_generator(name, 6, shape, width=2)(torch.randn(2, 6))
    assert images.shape == (2, *shape)
    assert images.min() >= 0 and images.max() <= 1


@pytest.mark.parametrize(("name", "parameters"), [("shallow", 2_328_899), ("tapered", 4_581_955)])
def test_at_32_pixels_they_are_as_large_as_in_the_papers(name: str, parameters: int) -> None:
    generator = new_generator(name, 256, ImageShape(3, 32, 32), width=64)
    assert sum(parameter.numel() for parameter in generator.parameters()) == parameters


@pytest.mark.parametrize("name", ["shallow", "tapered", "deep"])
@torch.no_grad()
def test_from_the_feature_maps_of_any_stage_the_rest_draws_the_same_images(name: str) -> None:
    generator = new_generator(name, 6, ImageShape(1, 9, 14), width=2).eval()
    codes = torch.randn(2, 6)
    features, images = generator.draw(codes)
    assert torch.equal(images, generator(codes))
    assert len(features) == len(generator.stages) == 3
    for stage, maps in enumerate(features):
        assert torch.equal(generator.resume(maps, stage), images)
        assert torch.equal(generator.resume(features[0], 0, until=stage), maps)


def test_a_generator_starts_afresh_with_small_weights() -> None:
    one, other = (new_generator("shallow", 20, ImageShape(3, 16, 16), width=16) for _ in range(2))
    for generator in (one, other):
        redraw_all(generator, torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    for name, weight in one.named_parameters():
        mean = float("weight" in name and weight.ndim == 1)  # of a BatchNorm
        assert weight.mean().item() == pytest.approx(mean, abs=0.02), name
        assert 0.01 < weight.std() < 0.03 if "weight" in name else not weight.any(), name


def test_the_first_linear_layer_and_the_first_batch_norm_start_afresh_alone() -> None:
    generator = new_generator("shallow", 20, ImageShape(3, 16, 16), width=16)
    before = {name: weight.detach().clone() for name, weight in generator.named_parameters()}
    redraw_first(generator, torch.Generator().manual_seed(0))
    changed = {name for name, weight in generator.named_parameters() if not torch.equal(weight, before[name])}
    assert changed == {"linear.weight", "linear.bias", "body.0.weight"}
    assert generator.body[0].weight.abs().max() < 0.1 and not generator.linear.bias.any()
