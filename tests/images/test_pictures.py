from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import resolve_data_config
from timm.data.transforms_factory import create_transform

from nayer_cli.images.pictures import decode, fit
from nayer_cli.types import ImageShape, Preparation

RGB, GRAY = ImageShape(3, 8, 8), ImageShape(1, 8, 8)


def noise(*size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def test_a_picture_of_the_right_size_is_untouched():
    pixels = noise(8, 8, 3)
    assert fit(pixels, RGB) is pixels
    assert np.array_equal(fit(Image.fromarray(pixels), RGB), pixels)


@pytest.mark.parametrize("size", [(20, 31), (31, 20), (5, 7), (8, 9)])
@pytest.mark.parametrize("shape", [RGB, ImageShape(3, 12, 8)])
def test_other_sizes_go_through_the_evaluation_transform_of_timm(size, shape):
    image = Image.fromarray(noise(*size, 3))
    transform = create_transform(tuple(shape), interpolation="bicubic", crop_pct=1.0, mean=(0, 0, 0), std=(1, 1, 1))
    expected = (transform(image) * 255).round().to(torch.uint8)
    assert np.array_equal(fit(image, shape), expected.permute(1, 2, 0))


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize(
    ("interpolation", "crop", "side"),
    [
        ("bicubic", 0.875, 224),
        ("bilinear", 0.9, 240),
        ("bicubic", 1.0, 288),
        ("nearest", 0.95, 64),
        ("bicubic", 1.15, 48),
    ],
)
def test_what_a_network_sees_is_what_timm_shows_it(mode, interpolation, crop, side):
    facts = {"interpolation": interpolation, "crop_pct": crop, "crop_mode": mode}
    config = resolve_data_config(pretrained_cfg={"input_size": (3, side, side), "mean": MEAN, "std": STD, **facts})
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    for height, width in ((91, 300), (400, 233), (side, side)):
        image = Image.fromarray(noise(height, width, 3))
        pixels = torch.from_numpy(fit(image, ImageShape(3, side, side), Preparation(**facts, border=MEAN)).copy())
        seen = (pixels.permute(2, 0, 1).float() / 255 - mean) / std
        torch.testing.assert_close(seen, create_transform(**config)(image), rtol=1e-5, atol=1e-6)


def test_arrays_of_another_size_are_resized_too():
    pixels = noise(16, 16, 1)
    assert np.array_equal(fit(pixels, GRAY), fit(Image.fromarray(pixels[..., 0]), GRAY))


def test_gray_becomes_rgb_and_rgb_gray():
    gray = noise(8, 8, 1)
    assert np.array_equal(fit(gray, RGB), gray.repeat(3, axis=2))
    assert np.array_equal(fit(gray.repeat(3, axis=2), GRAY), gray)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "RGBA", "LA", "P", "1", "L"])
def test_every_mode_of_pillow_becomes_rgb(mode):
    white = Image.new("RGB", (8, 8), "white").convert(mode)
    assert (fit(white, RGB) == 255).all()


def test_palette_with_transparency(recwarn):
    image = Image.fromarray(noise(8, 8, 3)).quantize(16)
    file = BytesIO()
    image.save(file, "PNG", transparency=bytes(range(16)))
    pixels = fit(decode(file), RGB)
    assert np.array_equal(pixels, np.asarray(image.convert("RGB")))
    assert not recwarn.list


def test_sixteen_bits_are_scaled_and_not_clipped():
    file = BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1024).save(file, "PNG")
    assert fit(decode(file), GRAY).ravel().tolist() == [i * 4 for i in range(64)]


def test_pixels_without_a_fixed_white_are_refused():
    with pytest.raises(ValueError, match="no fixed white"):
        fit(Image.new("F", (8, 8)), RGB)


def test_a_truncated_file_is_no_image():
    file = BytesIO()
    Image.fromarray(noise(64, 64, 3)).save(file, "JPEG")
    with pytest.raises(OSError, match="truncated"):
        decode(BytesIO(file.getvalue()[:-500]))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"%PDF-1.7 not a picture", "not an image in a format that nayer reads: JPEG"), (b"", "not an image in a format")],
)
def test_what_is_no_picture_is_told_by_kind(content: bytes, message: str) -> None:
    with pytest.raises(OSError, match=message) as fault:
        decode(BytesIO(content))
    assert "BytesIO" not in str(fault.value)


def test_a_cut_off_picture_is_told_by_kind() -> None:
    file = BytesIO()
    Image.effect_noise((64, 64), 50).save(file, "JPEG")
    with pytest.raises(OSError, match="damaged JPEG"):
        decode(BytesIO(file.getvalue()[:-500]))


def test_a_picture_as_thin_as_a_hair_is_not_blown_up() -> None:
    with pytest.raises(ValueError, match="cannot be resized"):
        fit(Image.new("L", (1, 5_000_000)), ImageShape(1, 32, 32))
