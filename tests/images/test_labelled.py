import numpy as np
import pytest
import torch
from PIL import Image

from nayer_cli.errors import InputError
from nayer_cli.images import labelled
from nayer_cli.images.labelled import LabelledImages, open_images
from nayer_cli.images.source import ArraySource
from nayer_cli.types import ImageShape

SHAPE = ImageShape(3, 8, 8)
CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def folder(tmp_path):
    """120 images of two classes; the gray value is the position in the listing."""
    for i in range(120):
        path = tmp_path / "cat_dog"[4 * (i >= 60) :][:3] / f"{i:03}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8), i).save(path)
    return tmp_path


def numbered(n=10, classes=None):
    images = np.arange(n, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2).repeat(3, 3)
    return ArraySource(images, np.arange(n) % 2, classes)


def whole(data, batch_size=7):
    images, labels = zip(*data.batches(batch_size), strict=True)
    return torch.cat(images), torch.cat(labels)


def test_batches_have_the_documented_types_and_a_fixed_order(folder):
    data = open_images(str(folder), shape=SHAPE)
    images, labels = whole(data)
    assert (images.dtype, images.shape, labels.dtype) == (torch.uint8, (120, 3, 8, 8), torch.int64)
    assert images[:, 0, 0, 0].tolist() == list(range(120))
    assert labels.tolist() == [0] * 60 + [1] * 60
    assert [len(batch) for batch, _ in data.batches(50)] == [50, 50, 20]
    assert (len(data), data.class_names, data.skipped) == (120, ["cat", "dog"], 0)


def test_labels_are_the_models(folder):
    data = open_images(str(folder), shape=SHAPE, class_names=["Dog", "Cat"])
    assert whole(data)[1].tolist() == [1] * 60 + [0] * 60
    assert data.class_names == ["Dog", "Cat"]


def test_folders_that_do_not_match_the_model_are_an_error_and_not_a_low_score(folder):
    with pytest.raises(InputError, match="no 'wolf', and the model has no 'dog'"):
        open_images(str(folder), shape=SHAPE, class_names=["cat", "wolf"])
    with pytest.raises(InputError, match="has 2 classes, but the model has 10"):
        open_images(str(folder), shape=SHAPE, num_classes=10)


def test_a_damaged_image_is_counted_and_named(folder):
    (folder / "cat" / "007.png").write_bytes(b"nothing")
    data = open_images(str(folder), shape=SHAPE)
    images, labels = whole(data)
    assert images[:, 0, 0, 0].tolist() == [i for i in range(120) if i != 7]
    assert (len(labels), len(data), data.skipped) == (119, 119, 1)
    assert list(data.unreadable) == ["cat/007.png"]


def test_more_than_one_percent_of_damage_is_an_error(folder):
    for name in ("cat/007.png", "dog/099.png"):
        (folder / name).write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"1% of the 120 images .* cat/007.png: .*; dog/099.png: "):
        open_images(str(folder), shape=SHAPE).prepare()


def test_a_part_bears_as_much_damage_as_the_whole(folder):
    (folder / "cat" / "008.png").write_bytes(b"nothing")
    data = open_images(str(folder), shape=SHAPE, part=(0, 4))
    assert (len(whole(data)[1]), data.skipped) == (29, 1)


def test_small_sets_are_read_once_and_large_ones_again(folder, monkeypatch):
    small = open_images(str(folder), shape=SHAPE)
    first = whole(small)
    monkeypatch.setattr(labelled, "MEMORY_BYTES", 1000)
    large = open_images(str(folder), shape=SHAPE)
    assert all(torch.equal(a, b) for a, b in zip(whole(large), first, strict=True))
    (folder / "cat" / "000.png").unlink()
    assert len(whole(small)[0]) == 120
    assert len(whole(large)[0]) == 119
    assert len(whole(large)[0]) == 119  # and the same damage is not counted twice
    assert large.skipped == 1


def test_a_limit_takes_images_of_every_class(folder):
    images, labels = whole(open_images(str(folder), shape=SHAPE, limit=6))
    assert images[:, 0, 0, 0].tolist() == [0, 20, 40, 60, 80, 100]
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_zero_images_are_refused():
    with pytest.raises(InputError, match="no images"):
        LabelledImages(numbered(0), SHAPE)


@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_that_is_no_class_index_is_refused(tmp_path, label):
    np.savez(tmp_path / "x.npz", images=numbered(3).images, labels=np.array([0, 1, label]))
    data = open_images(str(tmp_path / "x.npz"), shape=SHAPE, num_classes=2)
    with pytest.raises(InputError, match=f"image 2 of .* has label {label}"):
        data.prepare()


def test_class_names_of_an_npz_are_matched(tmp_path):
    np.savez(tmp_path / "x.npz", images=numbered().images, labels=np.arange(10) % 2, class_names=["b", "a"])
    data = open_images(str(tmp_path / "x.npz"), shape=SHAPE, class_names=["a", "b"])
    assert whole(data)[1].tolist() == [1, 0] * 5


def test_images_with_other_channels_than_the_model_are_refused(folder):
    with pytest.raises(InputError, match="have 3 channels, but the model takes 5"):
        open_images(str(folder), shape=ImageShape(5, 8, 8))


def test_unknown_data_suggests_a_name():
    with pytest.raises(InputError, match=r"no data 'digit' \(did you mean 'digits'"):
        open_images("digit", shape=SHAPE)


def test_a_built_in_set_comes_at_the_models_size():
    data = open_images("digits", shape=ImageShape(3, 16, 16), num_classes=10)
    images, labels = whole(data, 100)
    assert images.shape == (len(data), 3, 16, 16)
    assert labels.unique().tolist() == list(range(10))


def test_five_thousand_jpegs_decode(shared):
    data = open_images(
        str(shared / "data" / "cifar10-jpeg-test5k.tar"), shape=ImageShape(3, 32, 32), class_names=CIFAR10
    )
    _, labels = whole(data, 500)
    assert labels.bincount().tolist() == [500] * 10


def test_damaged_images_are_recorded_in_their_order_whichever_thread_is_first(folder, monkeypatch):
    monkeypatch.setattr(labelled, "MAX_UNREADABLE", 1.0)
    names = [f"cat/{i:03}.png" for i in range(0, 60, 3)]
    for name in names:
        (folder / name).write_bytes(b"nothing")
    data = open_images(str(folder), shape=SHAPE)
    data.prepare()
    assert list(data.unreadable) == names
