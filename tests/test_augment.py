import torch
from torch.autograd import gradcheck

from nayer_cli.augment import Augment, shift_flip


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
