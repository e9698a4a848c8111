import sys
from pathlib import Path

import pytest

from nayer_cli.classifiers import names, own
from nayer_cli.classifiers.architecture import find
from nayer_cli.config import ModelConfig
from nayer_cli.errors import InputError
from nayer_cli.lte import encoder
from nayer_cli.runs import models

NET = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(192, 3))

def build(): return Net()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("zoo").mkdir()
    Path("own_net.py").write_text(NET)
    Path("zoo/own_net.py").write_text(NET)
    return tmp_path


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("py:own_net:Net", "py:own_net:Net"),
        ("py:own_net.py:Net", "py:own_net:Net"),
        ("py:zoo/own_net.py:build", "py:zoo.own_net:build"),
        ("py:own_net", "py:own_net:Net"),
        ("py:zoo/own_net.py", "py:zoo.own_net:Net"),
    ],
)
def test_a_network_in_the_current_folder_is_found_by_what_people_write(written: str, key: str) -> None:
    assert find(written).key == key


@pytest.mark.parametrize("written", ["own_net.py", "own_net.py:Net", "own_net:Net", "Net"])
def test_other_forms_are_answered_with_the_one_that_works(written: str) -> None:
    with pytest.raises(InputError) as caught:
        find(written)
    assert caught.value.hint is not None and "py:own_net:Net" in caught.value.hint


def test_a_file_elsewhere_is_told_how_to_reach(folder: Path) -> None:
    with pytest.raises(InputError) as caught:
        find("py:/elsewhere/net.py:Net")
    assert caught.value.hint == "go there first: cd /elsewhere; then name it py:net:Net"
    assert find(f"py:{folder}/own_net.py:Net").key == "py:own_net:Net"


@pytest.mark.parametrize(("key", "name"), [("py:a.net:Net", "Net"), ("py:a.net:factory", "net")])
def test_a_network_is_called_by_its_class_or_its_module(key: str, name: str) -> None:
    assert own.display(key) == name


def test_all_that_is_missing_is_asked_for_at_once_in_a_line_to_type() -> None:
    spec = ModelConfig(name="py:own_net:Net")
    with pytest.raises(InputError) as caught:
        models.load(spec, models.TEACHERS["distill"], rest="--student resnet18", needs_names=True)
    assert all(word in str(caught.value) for word in ("size", "mean", "standard deviation", "names of its classes"))
    assert caught.value.hint == (
        "nayer distill --teacher py:own_net:Net --input-size 32 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 "
        "--labels classes.txt --student resnet18"
    )


def test_encoders_of_the_current_folder_are_found_by_the_same_rule() -> None:
    Path("own_encoder.py").write_text("def open_encoder(argument, device): return 'mine'")
    assert encoder.find("py:own_encoder") == "mine"


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("py:unseen:Nett", r"unseen has no function 'Nett' \(did you mean 'Net'\?\)"),
        ("py:unseent:Net", "there is no module 'unseent'"),
        ("py:unseen.deeper:Net", "there is no module 'unseen.deeper'"),
    ],
)
def test_code_that_is_not_there_is_told_without_running_any(written: str, told: str, folder: Path) -> None:
    (folder / "unseen.py").write_text(NET)
    with pytest.raises(InputError, match=told):
        names.check(written)
    assert "unseen" not in sys.modules
    names.check("py:unseen:Net")


def test_names_that_a_module_makes_as_it_runs_are_not_refused(folder: Path) -> None:
    (folder / "made.py").write_text("from unseen import *\n")  # this is not run
    names.check("py:made:Net")
    assert not {"made", "unseen"} & set(sys.modules)
