import pytest
import torch

from nayer_cli import plugins
from nayer_cli.generator import new_generator
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
