import numpy as np
import pytest

from nayer_cli.errors import InputError
from nayer_cli.images.sources import npz

IMAGES = np.arange(5 * 6 * 7 * 3, dtype=np.uint16).astype(np.uint8).reshape(5, 6, 7, 3)
LABELS = np.arange(5)


def save(tmp_path, **arrays):
    np.savez(tmp_path / "x.npz", **arrays)
    return npz.open_source(str(tmp_path / "x.npz"), "validation")


@pytest.mark.parametrize("images", [IMAGES, IMAGES.transpose(0, 3, 1, 2)])
def test_both_layouts_are_read(tmp_path, images):
    source = save(tmp_path, images=images, labels=LABELS)
    assert np.array_equal(source.images, IMAGES)
    assert [sample.load()[1] for sample in source.samples([1, 3])] == [1, 3]


def test_gray_images_get_a_channel(tmp_path):
    assert save(tmp_path, images=IMAGES[..., 0], labels=LABELS).images.shape == (5, 6, 7, 1)


def test_class_names_and_columns_of_labels(tmp_path):
    source = save(tmp_path, images=IMAGES, labels=LABELS[:, None], class_names=np.array(["a", "b"]))
    assert source.classes == ["a", "b"]
    assert source.labels.shape == (5,)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": IMAGES}, "no array 'labels'"),
        ({"images": IMAGES / 255, "labels": LABELS}, "float64, not uint8"),
        ({"images": IMAGES, "labels": LABELS[:3]}, r"not whole numbers \[5\]"),
        ({"images": IMAGES, "labels": LABELS * 0.5}, "not whole numbers"),
        ({"images": IMAGES[0, 0], "labels": LABELS}, "have shape|are uint8"),
        ({"images": IMAGES[0, 0, 0], "labels": LABELS}, r"have shape \[3\]: not \[N, H, W, C\] or"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, r"have shape \[0, 6, 7, 3\]: no pixels"),
        ({"images": IMAGES[:, :, :0], "labels": LABELS}, r"have shape \[5, 6, 0, 3\]: no pixels"),
        ({"images": IMAGES[..., :0], "labels": LABELS}, "no pixels"),
    ],
)
def test_other_arrays_are_refused(tmp_path, arrays, message):
    with pytest.raises(InputError, match=message):
        save(tmp_path, **arrays)


def test_pickled_objects_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        save(tmp_path, images=IMAGES, labels=np.array([{}] * 5, dtype=object))


@pytest.mark.parametrize("content", [b"", b"nothing", b"PK\x03\x04broken"])
def test_a_damaged_file_is_an_error(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(InputError, match="cannot read"):
        npz.open_source(str(tmp_path / "x.npz"), "validation")
