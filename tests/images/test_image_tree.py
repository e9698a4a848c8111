import pytest

from nayer_cli.errors import InputError
from nayer_cli.images.image_tree import arrange


def tree(*paths, folders=(), split="validation"):
    return arrange(((path, path) for path in paths), folders, split, "x.tar")


def test_class_folders_are_in_text_order():
    assert tree("b/1.jpg", "a/2.jpg", "10/3.jpg").classes == ["10", "a", "b"]


def test_images_keep_their_order_and_get_their_class():
    assert tree("b/1.jpg", "a/sub/2.jpg", "b/3.jpg").images == [
        ("b/1.jpg", 1),
        ("a/sub/2.jpg", 0),
        ("b/3.jpg", 1),
    ]


@pytest.mark.parametrize("split", ["validation", "val", "eval"])
def test_synonyms_of_a_split_are_found(split):
    assert tree("set/val/a/1.jpg", "set/train/a/2.jpg", "set/train/b/3.jpg", split=split).classes == ["a"]


def test_a_split_may_have_any_name():
    assert tree("a/x/1.jpg", "a/y/1.jpg", "b/z/1.jpg", split="a").classes == ["x", "y"]


def test_a_split_that_is_not_there_names_those_that_are():
    with pytest.raises(InputError, match="no split 'validation'; it has test, train") as caught:
        tree("test/a/1.jpg", "train/a/2.jpg")
    assert caught.value.hint == "try --split test"


def test_a_class_may_be_called_train():
    assert tree("tank/1.jpg", "train/2.jpg", split="train").classes == ["tank", "train"]


def test_wrapping_folders_are_looked_through():
    assert tree("./set/images/a/1.jpg", "./set/images/b/2.jpg").classes == ["a", "b"]


def test_dots_and_roots_in_names_lead_nowhere():
    assert tree("../../etc/1.jpg", "/etc/2.jpg", "cat/3.jpg").classes == ["cat", "etc"]


def test_no_images_is_an_error():
    with pytest.raises(InputError, match="no images in class folders"):
        tree("1.jpg")


def test_an_empty_class_folder_is_named():
    with pytest.raises(InputError, match=r"class folder 'c' of x\.tar holds no image"):
        tree("val/a/1.jpg", "val/b/1.jpg", folders=["val", "val/a", "val/c", "train/d", "val/.git"])
