"""Commands from end to end, with real recipes on small data."""

import json

import pytest
from safetensors import safe_open

FACTORY = """
import torch
from torch import nn

class Brightness(nn.Module):
    def __init__(self):
        super().__init__()
        self.at = nn.Parameter(torch.tensor(0.0))

    def forward(self, images):
        return torch.stack([self.at - images.mean((1, 2, 3)), images.mean((1, 2, 3)) - self.at], 1)
"""
FACTS = ("--num-classes", 2, "--input-size", 8, "--mean", "0.5", "--std", "0.25")


@pytest.fixture
def brightness(tmp_path, monkeypatch):
    """A folder of dark and light images, and a classifier that is always right about them."""
    from PIL import Image

    (tmp_path / "brightness.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(tmp_path)
    for name, level in (("dark", 10), ("light", 240)):
        for i in range(3):
            path = tmp_path / "images" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (level, level, level)).save(path)
    return "py:brightness:Brightness", "--data", tmp_path / "images", *FACTS


def test_embed_writes_a_pool_and_prints_where(nayer, tmp_path):
    ran = nayer("embed", "--labels", "digits", "--encoder", "onehot", "--out", tmp_path / "pool", "--json")
    document = json.loads(ran.out)
    assert (ran.code, document["classes"], document["dim"]) == (0, 10, 10)
    with safe_open(document["path"], framework="pt") as file:
        assert file.keys()


def test_embed_prints_a_table_for_people(nayer, tmp_path):
    ran = nayer("embed", "-l", "digits", "--encoder", "onehot", "--cache-dir", tmp_path)
    facts = dict(line.split(maxsplit=1) for line in ran.out.splitlines())
    assert (ran.code, facts["encoder"], facts["cached"]) == (0, "onehot", "False")
    assert "prompt" not in facts  # it reads no text


def test_a_fault_of_the_recipe_is_told_on_stderr(nayer, tmp_path):
    ran = nayer("embed", "--labels", tmp_path / "nowhere.txt", "--encoder", "onehot", "--json")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: ")


def test_eval_prints_one_document_and_writes_it(nayer, brightness, tmp_path):
    ran = nayer("eval", *brightness, "--json", "--out", tmp_path / "r.json")
    assert ran.code == 0
    assert json.loads(ran.out) == json.loads((tmp_path / "r.json").read_text())
    assert json.loads(ran.out)["results"][0]["top1"] == 1.0


def test_eval_compares_models_in_a_table(nayer, brightness):
    model, *rest = brightness
    ran = nayer("eval", model, model, *rest)
    assert ran.code == 0
    assert [line.split()[:2] for line in ran.out.splitlines()[1:]] == [[model, "100.00"]] * 2


def test_a_missed_gate_exits_with_1_after_the_result(nayer, brightness, tmp_path):
    (tmp_path / "images" / "dark" / "0.png").replace(tmp_path / "images" / "light" / "wrong.png")
    ran = nayer("eval", *brightness, "--min-top1", 0.9, "--json")
    assert ran.code == 1
    assert json.loads(ran.out)["passed"] is False
    assert "top1 of py:brightness:Brightness is 0.8333, but >= 0.9 is wanted" in ran.err


def test_info_describes_the_installation(nayer):
    ran = nayer("info", "--json")
    document = json.loads(ran.out)
    assert ran.code == 0
    assert document["packages"]["torch"]
    assert document["problems"] == []
    assert "nayer" in nayer("info").out


def test_info_lists_methods_and_networks(nayer):
    assert "NAYER" in nayer("info", "--methods").out
    assert json.loads(nayer("info", "--models", "wrn_*", "--json").out)["models"] == [
        "wrn_16_1",
        "wrn_16_2",
        "wrn_40_1",
        "wrn_40_2",
    ]
    assert nayer("info", "--models", "wrn_40_3").code == 2
    assert nayer("info", "--models", "wrn*", "--methods").code == 2


def test_bench_shows_a_row_for_each_model_and_where_it_ran(nayer, monkeypatch):
    monkeypatch.setattr("nayer_cli.machine.turns.TURN", 0.0)
    ran = nayer("bench", "builtin:digits", "resnet8_digits", "--num-classes", 10, "--repeats", 6, "--batch", 2)
    rows = [line.split() for line in ran.out.splitlines() if line]
    assert (ran.code, [row[0] for row in rows[:3]]) == (0, ["model", "builtin:digits", "resnet8_digits"])
    assert "1.00×" in rows[1] and {"processor", "threads", "repeats"} == {row[0] for row in rows[3:]}


def test_bench_tells_early_what_is_missing(nayer, tmp_path, monkeypatch):
    assert nayer("bench").code == 2
    assert "there is no ONNX file" in nayer("bench", tmp_path / "no.onnx").err
    (tmp_path / "m.onnx").write_bytes(b"")
    assert "is not an ONNX file" in nayer("bench", tmp_path / "m.onnx").err
    assert "--input-size 32" in nayer("bench", "py:torch.nn:Identity").err
    monkeypatch.setattr("nayer_cli.onnx.packages.PACKAGES", ("no_such_package",))
    ran = nayer("bench", tmp_path / "m.onnx")
    assert (ran.code, "nayer-cli[onnx]" in ran.err) == (3, True)
