import sys
from pathlib import Path

import pytest
import torch

from nayer_cli import plugins
from nayer_cli.errors import InputError
from nayer_cli.lte import encoder

CONTROLS = ["index", "onehot", "random"]
NAMES = ["cat", "dog", "tree"]


def test_the_encoders_are_those_documented() -> None:
    expected = ["clip", "doc2vec", "index", "onehot", "random", "sbert", "sentence-transformers"]
    assert plugins.names("encoders") == expected


@pytest.mark.parametrize("name", CONTROLS)
def test_controls_depend_on_nothing_but_the_number_of_classes(name: str) -> None:
    made = encoder.find(name)
    vectors = made.encode(NAMES)
    assert vectors.dtype == torch.float32 and len(vectors) == 3
    assert torch.equal(vectors, encoder.find(name).encode(["x", "y", "z"]))
    assert made.name == name and made.revision


@pytest.mark.parametrize("name", [*CONTROLS, "clip", "sbert"])
def test_an_argument_that_nobody_takes_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"encoder '{name}' takes no argument"):
        encoder.find(f"{name}:7")


def test_an_encoder_can_come_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from nayer_cli.lte.encoders.onehot import OneHot\ndef open_encoder(argument, device): return OneHot()\n"
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_encoders").mkdir()
    (tmp_path / "own_encoders" / "mine.py").write_text(code)
    (tmp_path / "own_encoders" / "none.py").write_text("")
    assert torch.equal(encoder.find("py:own_encoders.mine").encode(NAMES), torch.eye(3))
    with pytest.raises(InputError, match="does not define open_encoder"):
        encoder.find("py:own_encoders.none")


def test_opening_is_cheap(tiny_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)  # importing it would now fail
    assert encoder.find(str(tiny_clip)).revision.startswith("sha256:")
