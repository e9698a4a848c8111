import torch
from torch.autograd import gradcheck

from nayer_cli.augment import Augment, ResizedCrop, _interpolation, resample, shift_flip


def test_shift_and_flip_by_hand():
    image = torch.arange(9.0).view(1, 1, 3, 3)
    one = torch.tensor([1])
    shifted = shift_flip(image, one, torch.tensor([0]), torch.tensor([False]))
    assert shifted[0, 0].tolist() == [[3, 4, 5], [6, 7, 8], [0, 0, 0]]
    right = shift_flip(image, torch.tensor([0]), one, torch.tensor([True]))
    assert right[0, 0].tolist() == [[0, 2, 1], [0, 5, 4], [0, 8, 7]]


def test_equals_pad_crop_and_flip_image_by_image():
    images = torch.rand(16, 3, 6, 5)
    down, right = torch.randint(-2, 3, (2, 16))
    flips = torch.rand(16) < 0.5
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    for i, result in enumerate(shift_flip(images, down, right, flips)):
        top, left = 2 + down[i], 2 + right[i]
        crop = padded[i, :, top : top + 6, left : left + 5]
        assert torch.equal(result, crop.flip(2) if flips[i] else crop)


def test_gradient_is_exact():
    images = torch.rand(4, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    down, right = torch.tensor([1, -2, 0, 2]), torch.tensor([-1, 2, 1, 0])
    flips = torch.tensor([True, False, True, False])
    assert gradcheck(lambda x: shift_flip(x, down, right, flips), (images,))


def test_every_image_gets_its_own_crop_and_the_same_seed_the_same_crops():
    images = torch.rand(1, 1, 8, 8).expand(64, -1, -1, -1)
    augment = Augment(pad=2, flip=True)
    first = augment(images, torch.Generator().manual_seed(3))
    assert len({image.numpy().tobytes() for image in first}) > 20
    assert torch.equal(first, augment(images, torch.Generator().manual_seed(3)))


def drawn(images: torch.Tensor, pad: int, flip: bool) -> torch.Tensor:
    return Augment(pad, flip)(images, torch.Generator().manual_seed(0))


def test_half_of_the_images_are_mirrored():
    ramp = torch.arange(3.0).expand(1000, 1, 1, 3)
    mirrored = (drawn(ramp, pad=0, flip=True) == ramp.flip(3)).all(3).float().mean()
    assert 0.45 < mirrored < 0.55


def test_no_image_is_mirrored_unless_asked_for():
    ramp = torch.arange(8.0).expand(100, 1, 8, 8)
    middle = drawn(ramp, pad=2, flip=False)[:, 0, 4, 3:5]
    assert (middle[:, 0] < middle[:, 1]).all()


def test_shifts_reach_both_ends_of_the_padding_in_both_directions():
    images = torch.zeros(200, 1, 5, 5)
    images[:, :, 2, 2] = 1
    lit = drawn(images, pad=2, flip=False).nonzero()
    assert len(lit) == 200
    assert lit[:, 2].unique().tolist() == lit[:, 3].unique().tolist() == [0, 1, 2, 3, 4]


def test_without_padding_and_flip_images_pass_as_they_are():
    images = torch.rand(2, 1, 3, 3)
    assert drawn(images, pad=0, flip=False) is images


def test_everything_happens_where_the_images_are():
    images = torch.rand(2, 1, 3, 3, device="meta", requires_grad=True)
    numbers = torch.zeros(2, dtype=torch.long, device="meta")
    shift_flip(images, numbers, numbers, numbers.bool()).sum().backward()
    assert images.grad.device.type == "meta"


def test_the_type_of_the_images_stays():
    images = torch.rand(2, 1, 3, 3, dtype=torch.bfloat16)
    assert drawn(images, pad=1, flip=True).dtype == torch.bfloat16


def one(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_a_window_is_stretched_as_torch_resizes_it():
    images = torch.rand(1, 2, 8, 6, dtype=torch.float64)
    rows, columns = _interpolation(one(0.5), one(0.25), 8), _interpolation(one(1.0), one(0.0), 6)
    inner = torch.nn.functional.interpolate(images, size=(16, 6), mode="bilinear")[:, :, 4:12]
    torch.testing.assert_close(resample(images, rows, columns), inner)


def test_random_windows_keep_shape_and_range_and_differ():
    images = torch.rand(1, 3, 8, 6).expand(64, -1, -1, -1)
    crop = ResizedCrop(flip=True)
    first = crop(images, torch.Generator().manual_seed(3))
    assert first.shape == images.shape and first.min() >= images.min() and first.max() <= images.max() + 1e-6
    assert len({image.numpy().tobytes() for image in first}) == 64
    assert torch.equal(first, crop(images, torch.Generator().manual_seed(3)))


def test_windows_are_as_large_and_as_long_as_promised():
    shares = []
    ramps = torch.stack([torch.arange(64.0).expand(64, 64).mT, torch.arange(64.0).expand(64, 64)])
    for image in ResizedCrop(flip=False)(ramps.expand(400, -1, -1, -1), torch.Generator().manual_seed(0)):
        # From the second to the last but one: at the rim of an image nothing lies outside to interpolate with.
        tall, wide = (image[0, 62, 5] - image[0, 1, 5]) / 61, (image[1, 5, 62] - image[1, 5, 1]) / 61
        shares.append((tall * wide, wide / tall))
    area, ratio = torch.tensor(shares).mT
    assert area.min() > 0.24 and area.max() < 1.01 and 0.55 < area.mean() < 0.7
    assert ratio.min() > 0.74 and ratio.max() < 1.34


def test_half_of_the_windows_are_flipped_if_asked():
    ramp = torch.arange(8.0).expand(200, 1, 8, 8)
    for flip, low, high in ((True, 60, 140), (False, 0, 0)):
        out = ResizedCrop(flip)(ramp, torch.Generator().manual_seed(0))
        assert low <= (out[:, 0, 0, 0] > out[:, 0, 0, 7]).sum() <= high


def test_the_gradient_of_a_window_is_exact():
    images = torch.rand(2, 1, 4, 5, dtype=torch.float64, requires_grad=True)
    rows, columns = _interpolation(one(0.7, 0.5), one(0.1, 0.3), 4), _interpolation(one(0.6, 1.0), one(0.2, 0.0), 5)
    assert gradcheck(lambda x: resample(x, rows, columns), (images,))
