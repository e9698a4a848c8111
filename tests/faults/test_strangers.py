"""What somebody else's files may not do: name code, addresses, or paths outside their folder."""

import json
import pickle
import socket
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from nayer_cli.__main__ import main
from nayer_cli.classifiers.model import load_classifier, new_network, save_classifier
from nayer_cli.classifiers.sealed import sealed
from nayer_cli.config import ModelConfig
from nayer_cli.errors import InputError
from nayer_cli.runs.words import check, trusted
from nayer_cli.trust import trusting_code
from tiny_clip import fill_hub_cache

EVIL = "from pathlib import Path\nPath('it-ran').touch()\nimport torch\ndef net(): return torch.nn.Sequential()\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder with a module that must not run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    (tmp_path / "evilmod.py").write_text(EVIL)
    yield tmp_path
    sys.modules.pop("evilmod", None)


def model_of_a_stranger(folder: Path, **changes: Any) -> Path:
    save_classifier(folder, new_network(ModelConfig("wrn_16_1"), 3, ("a", "b", "c")), card="", extra={})
    document = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(document))
    return folder


HOSTILE: dict[str, Any] = {
    "pretrained": True,
    "pretrained_cfg": {"url": "http://127.0.0.1:9/x.pth"},
    "pretrained_cfg_overlay": {"url": "http://127.0.0.1:9/x.pth", "hf_hub_id": None},
    "cache_dir": "elsewhere",
    "checkpoint_path": "evil.pth",
    "features_only": True,
    "file": "evil.pth",
    "custom_load": True,
    "hf_hub_id": "evil/repo",
    "device": "cuda",
    "act_layer": "../../evil",
    "norm_layer": {"class": "evil"},
    "img_size": 10**12,
    "drop_rate": float("nan"),
    "layers": [[[[[[1]]]]]],
    "depths": [1] * 2000,
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("form", ["{}", "local-dir:{}"])
def test_only_what_shapes_a_network_passes(here: Path, name: str, form: str) -> None:
    folder = model_of_a_stranger(here / "m", model_args={name: HOSTILE[name]})
    with pytest.raises(InputError, match=name):
        load_classifier(ModelConfig(form.format(folder)))
    assert not (here / "elsewhere").exists()


def test_hub_repositories_are_strangers_too(here: Path, hub_cache: Path) -> None:
    fill_hub_cache(hub_cache, "lab/wrn", model_of_a_stranger(here / "m", model_args={"cache_dir": "elsewhere"}))
    with pytest.raises(InputError, match="cache_dir"):
        load_classifier(ModelConfig("hf-hub:lab/wrn"))


def test_of_a_preparation_only_facts_are_read(here: Path, hub_cache: Path) -> None:
    facts = {"mean": [0.25], "std": [0.5], "input_size": [3, 32, 32], "url": "http://127.0.0.1:9/x.pth"}
    facts |= {"hf_hub_id": "evil/repo", "hf_hub_filename": "../x", "file": "/x.pth", "custom_load": True, "source": "x"}
    folder = model_of_a_stranger(here / "m", pretrained_cfg=facts, model_args={"pretrained": False, "drop_rate": None})
    fill_hub_cache(hub_cache, "lab/wrn", folder)
    for name in (str(folder), "hf-hub:lab/wrn"):
        assert load_classifier(ModelConfig(name)).normalization.mean == (0.25,) * 3


@pytest.mark.parametrize(
    "arguments",
    [
        {"drop_rate": 0.1, "global_pool": "avgmax", "layers": [1, 1, 1, 1], "act_layer": "silu"},
        {"stem_type": "deep", "stem_width": 32, "avg_down": True, "output_stride": 32},
    ],
)
def test_what_shapes_a_network_does(here: Path, arguments: dict[str, Any]) -> None:
    network = timm.create_model("resnet18", num_classes=3, **arguments)
    folder = here / "m"
    folder.mkdir()
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    facts = {"mean": [0.5], "std": [0.5], "input_size": [3, 32, 32]}
    document = {"architecture": "resnet18", "num_classes": 3, "model_args": arguments, "pretrained_cfg": facts}
    (folder / "config.json").write_text(json.dumps(document))
    loaded = load_classifier(ModelConfig(str(folder)))
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(loaded.network(images), network.eval()(images))


class Evil:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("it-ran"),)


def test_a_sealed_block_connects_to_nothing_and_unpickles_no_code(here: Path) -> None:
    torch.save({"x": Evil()}, "evil.pth")
    with sealed(), pytest.raises(Exception, match="Weights only"):
        torch.load("evil.pth", weights_only=False)
    with sealed(), pytest.raises(InputError, match="connect"):
        urllib.request.urlopen("http://127.0.0.1:9/")
    with sealed(), pytest.raises(InputError, match="connect"):
        socket.create_connection(("127.0.0.1", 9), 1)
    with sealed(), pytest.raises(InputError, match="pickled"):
        pickle.loads(pickle.dumps(Evil()))
    with sealed(), suppress(Exception):  # releases of timm differ in what they raise
        timm.create_model("wrn_16_1", checkpoint_path="evil.pth")
    assert not (here / "it-ran").exists()


@pytest.mark.parametrize("command", ["eval {} --data digits", "distill -t {} -s wrn_16_1", "quantize --model {}"])
def test_a_model_folder_names_no_code(here: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    model_of_a_stranger(here / "m", architecture="py:evilmod:net")
    assert main(command.format("local-dir:m").split()) == 2
    assert "--trust-code" in capsys.readouterr().err
    assert not (here / "it-ran").exists()
    main([*command.format("local-dir:m").split(), "--trust-code"])
    assert (here / "it-ran").exists()


SETTINGS = [
    ("teacher.name", "py:evilmod:net"),
    ("student.name", "py:evilmod:net"),
    ("lte.encoder", "py:evilmod"),
    ("method.name", "evilmod.sub"),
    ("method.generator", "evilmod.sub"),
    ("eval.data", "wds/pipe:touch it-ran"),
    ("eval.data", "hfds/evil/data"),
    ("teacher.name", "hf-hub:evil/never-fetched"),
    ("lte.encoder", "evil/never-fetched"),
    ("lte.encoder", "sentence-transformers:never-fetched"),
]
PLACES = [("output.out", "/tmp/evil"), ("lte.cache_dir", "x/../../evil"), ("lte.cache_dir", "~/evil")]


@pytest.mark.parametrize(("key", "value"), SETTINGS)
def test_a_run_names_no_code_and_nothing_to_fetch(here: Path, hub_cache: Path, key: str, value: str) -> None:
    run = here / "config.toml"
    with pytest.raises(InputError, match="which needs your consent") as fault:
        trusted({key: value}, {}, run)
    assert "--trust-code" in str(fault.value.hint)
    trusted({key: value}, {key: value}, run)
    with trusting_code():
        trusted({key: value}, {}, run)


def test_a_run_does_not_say_where_to_write(here: Path) -> None:
    assert trusted({**dict(PLACES), "seed": 1}, {}, here / "config.toml") == {"seed": 1}


@pytest.mark.parametrize("command", ["distill", "train", "quantize", "study"])
def test_settings_files_name_no_code_nothing_to_fetch_and_no_place(
    here: Path, hub_cache: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    for key, value in (*SETTINGS, *PLACES[command == "study" :]):  # a study itself says where its runs are
        part, _, name = key.partition(".")
        if command == "train" and part in ("lte", "method"):
            continue
        text = f'[rows.a]\n{key} = "{value}"\n' if command == "study" else f'[{part}]\n{name} = "{value}"\n'
        (here / "some.toml").write_text(text)
        words = ["study", "some.toml", "--print"] if command == "study" else [command, "--config", "some.toml"]
        assert main(words) == 2, key
        assert value in (told := capsys.readouterr().err) and "--trust-code" in told
    assert not (here / "it-ran").exists()


def test_a_settings_file_may_say_where_to_write_below_the_current_folder(here: Path) -> None:
    check({"output.out": "runs/a..b", "lte.cache_dir": "cache"}, {}, "some.toml")
