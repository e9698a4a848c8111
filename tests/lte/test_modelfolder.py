import json
import shutil
from pathlib import Path

import pytest

from nayer_cli.errors import InputError
from nayer_cli.lte.modelfolder import check_folder, digest, missing_files

TRANSFORMER = "sentence_transformers.models.Transformer"


@pytest.fixture
def folder(tmp_path: Path, tiny_clip: Path) -> Path:
    return Path(shutil.copytree(tiny_clip, tmp_path / "model"))


def folder_of(tmp_path: Path, modules: object, files: list[str]) -> Path:
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("{}")
    return tmp_path


def test_a_whole_model_lacks_nothing(folder: Path) -> None:
    assert missing_files(folder) == []
    check_folder(folder)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "vocab.json"])
def test_what_a_model_cannot_do_without_is_missed(folder: Path, file: str) -> None:
    (folder / "0_CLIPModel" / file).unlink()
    assert len(missing_files(folder)) == 1
    with pytest.raises(InputError, match="not a complete sentence-transformers model"):
        check_folder(folder)


def test_a_link_to_nothing_is_missing(folder: Path) -> None:
    weights = folder / "0_CLIPModel" / "model.safetensors"
    weights.unlink()
    weights.symlink_to(folder / "blob-that-was-never-finished")
    assert missing_files(folder) == ["0_CLIPModel/*.safetensors"]


def test_modules_in_the_root_and_without_files_are_understood(tmp_path: Path) -> None:
    modules = [
        {"path": "", "type": TRANSFORMER},
        {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    folder_of(tmp_path, modules, ["config.json", "pytorch_model.bin", "vocab.txt"])
    assert missing_files(tmp_path) == ["1_Pooling/config.json"]


def test_every_shard_of_the_weights_is_needed(tmp_path: Path) -> None:
    files = ["config.json", "tokenizer.json", "model-1-of-2.safetensors"]
    folder_of(tmp_path, [{"path": "", "type": TRANSFORMER}], files)
    index = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert missing_files(tmp_path) == ["model-2-of-2.safetensors"]


def test_code_in_the_folder_is_refused(tmp_path: Path) -> None:
    folder_of(tmp_path, [{"path": "", "type": "custom.Evil"}], ["custom.py"])
    with pytest.raises(InputError, match=r"needs code of its own \(custom.Evil\)"):
        check_folder(tmp_path)


@pytest.mark.parametrize(
    ("file", "settings", "code"),
    [
        ("config.json", {"activation_function": "evil.Act"}, "evil.Act"),
        ("router_config.json", {"types": {"query_0": "evil.Module"}}, "evil.Module"),
        ("wordembedding_config.json", {"tokenizer_class": "evil.Tokens"}, "evil.Tokens"),
        ("config.json", {"auto_map": {"AutoModel": "modeling.Evil"}}, "modeling.Evil"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil", None]}}, "evil"),
    ],
)
def test_code_that_a_module_names_is_refused(tmp_path: Path, file: str, settings: object, code: str) -> None:
    folder_of(tmp_path, [{"path": "2_Any", "type": "sentence_transformers.models.Any"}], ["2_Any/x.json"])
    (tmp_path / "2_Any" / file).write_text(json.dumps(settings))
    with pytest.raises(InputError, match=f"needs code of its own .*{code}"):
        check_folder(tmp_path)


def test_standard_classes_are_taken(tmp_path: Path) -> None:
    settings = {"activation_function": "torch.nn.modules.activation.Tanh", "tokenizer_class": "CLIPTokenizer"}
    folder_of(tmp_path, [{"path": "", "type": "sentence_transformers.models.Any"}], [])
    (tmp_path / "config.json").write_text(json.dumps(settings))
    check_folder(tmp_path)


@pytest.mark.parametrize("path", ["../else", "/etc", "a/../../b", "..\\b", "a\0"])
def test_paths_outside_the_folder_are_refused(tmp_path: Path, path: str) -> None:
    folder_of(tmp_path, [{"path": path, "type": TRANSFORMER}], [])
    with pytest.raises(InputError, match="names a path outside its folder"):
        check_folder(tmp_path)


@pytest.mark.parametrize("content", ["{", '{"a": 1}', '[{"type": "x"}]', "3"])
def test_a_damaged_list_of_modules_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "modules.json").write_text(content)
    with pytest.raises(InputError, match=r"modules\.json"):
        check_folder(tmp_path)


def test_the_digest_follows_contents_and_names_not_the_place(folder: Path, tiny_clip: Path) -> None:
    assert digest(folder) == digest(tiny_clip)
    (folder / "0_CLIPModel" / "merges.txt").write_text("#version: 0.3\n")
    assert digest(folder) != digest(tiny_clip)
