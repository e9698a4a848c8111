import re
from pathlib import Path

import pytest

from nayer_cli.images import dataset
from nayer_cli.images.datasets.tiny_imagenet import WORDNET_IDS


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "imagenet"])
def test_names_are_those_of_the_published_pools(name: str, shared: Path) -> None:
    published = (shared / "lte" / f"{name}.labels.txt").read_text().split("\n")
    ours = [re.sub(r" \(.*\)$", "", known) for known in dataset.find(name).class_names]  # two are told apart by a gloss
    assert ours == [line for line in published if line]


def test_tiny_imagenet_has_the_published_names_in_the_order_of_its_ids(shared: Path) -> None:
    published = (shared / "lte" / "tiny_imagenet.labels.txt").read_text().splitlines()
    assert sorted(dataset.find("tiny-imagenet").class_names) == sorted(published)
    assert sorted(set(WORDNET_IDS)) == WORDNET_IDS


def test_tiny_imagenet_is_part_of_imagenet_in_the_same_order() -> None:
    from timm.data.imagenet_info import ImageNetInfo

    of_imagenet = ImageNetInfo("imagenet-1k").label_names()
    assert [wordnet_id for wordnet_id in of_imagenet if wordnet_id in WORDNET_IDS] == WORDNET_IDS


def test_cifar100_is_in_alphabetical_order_like_torchvision() -> None:
    names = dataset.find("cifar100").class_names
    assert list(names) == sorted(names)
