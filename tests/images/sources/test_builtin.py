import pytest

from nayer_cli.errors import InputError
from nayer_cli.images.sources import builtin


def test_digits_bring_images_and_names():
    source = builtin.open_source("digits", "validation")
    assert source.images.ndim == 4
    assert len(source) == len(source.labels) > 100
    assert len(source.classes) == 10


def test_names_without_images_are_refused():
    assert builtin.recognizes("cifar10")
    with pytest.raises(InputError, match="do not ship"):
        builtin.open_source("cifar10", "validation")


def test_other_words_are_not_recognized():
    assert not builtin.recognizes("digitz")
