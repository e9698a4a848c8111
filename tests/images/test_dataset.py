import subprocess
import sys

import pytest

from nayer_cli import plugins
from nayer_cli.errors import InputError
from nayer_cli.images import dataset

CLASSES = {"cifar10": 10, "cifar100": 100, "digits": 10, "imagenet": 1000, "tiny-imagenet": 200}


def test_the_sets_are_those_documented() -> None:
    assert plugins.names("datasets") == sorted(CLASSES)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_facts_of_every_set_agree_with_each_other(name: str) -> None:
    facts = dataset.find(name)
    assert len(facts.class_names) == CLASSES[name]
    assert all(label == label.strip() != "" for label in facts.class_names)
    assert len(facts.normalization.mean) == len(facts.normalization.std) == facts.shape.channels
    assert all(0 < value < 1 for value in (*facts.normalization.mean, *facts.normalization.std))


def test_names_are_looked_up_once() -> None:
    facts = dataset.find("tiny-imagenet")
    assert facts.class_names is facts.class_names


def test_an_unknown_set_is_refused_with_a_suggestion() -> None:
    with pytest.raises(InputError, match="did you mean 'cifar10'"):
        dataset.find("cifar11")


def test_facts_need_neither_torch_nor_timm() -> None:
    find_all = "[dataset.find(name) for name in plugins.names('datasets')]"
    check = "assert not {'torch', 'timm', 'sklearn'} & set(sys.modules)"
    code = f"import sys; from nayer_cli import plugins; from nayer_cli.images import dataset; {find_all}; {check}"
    subprocess.run([sys.executable, "-c", code], check=True)
