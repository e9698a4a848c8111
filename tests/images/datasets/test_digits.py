import hashlib

import numpy as np
import pytest

from nayer_cli.errors import InputError
from nayer_cli.images import dataset
from nayer_cli.images.datasets.digits import load


def test_validation_holds_fifty_digits_of_each_class() -> None:
    images, labels = load("validation")
    assert images.shape == (500, 16, 16, 1)
    assert images.dtype == np.uint8 and labels.dtype == np.int64
    assert np.bincount(labels).tolist() == [50] * 10


def test_the_splits_share_no_digit() -> None:
    train, held_out = load("train")[0], load("validation")[0]
    assert len(train) == 1297
    assert not {image.tobytes() for image in train} & {image.tobytes() for image in held_out}


def test_the_held_out_digits_stay_the_same() -> None:
    # Accuracies that we publish are of these 500: another split would not show otherwise.
    assert hashlib.sha256(load("validation")[1].tobytes()).hexdigest()[:16] == "c9a79db3fbde4e99"


def test_images_use_the_whole_range() -> None:
    images, _ = load("train")
    assert (images.min(), images.max()) == (0, 255)


def test_normalization_is_that_of_the_train_split() -> None:
    images = load("train")[0] / 255
    mean, std = dataset.find("digits").normalization
    assert mean[0] == pytest.approx(images.mean(), abs=0.005)
    assert std[0] == pytest.approx(images.std(), abs=0.005)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'train'"):
        load("training")
