"""What the documents say is what the program does: their commands run, their code runs, their links lead somewhere."""

import os
import shlex
import shutil
from dataclasses import fields, replace
from importlib import import_module
from itertools import pairwise, takewhile
from pathlib import Path

import pytest
from timm.models._registry import _model_pretrained_cfgs as registry

import documents
from nayer_cli import config, plugins
from nayer_cli.__main__ import main
from nayer_cli.storage import toml

LINES = list({line.text: line for page in documents.PAGES for line in documents.commands(page)}.values())
SNIPPETS = [snippet for page in documents.PAGES for snippet in documents.snippets(page)]
SHELL = ("|", ">", "&")
"""What a shell does with a command's words or output is not the command's."""
GATES = {"--min-top1", "--max-drop"}
CACHED = {"resnet50": "a1_in1k", "tf_efficientnet_lite0": "in1k"}
"""Models of timm whose pretrained weights the documents name."""
SMALL = {"input_size": (3, 64, 64), "test_input_size": (3, 64, 64)}
"""Images of which those models are told to be made: 224 pixels take a dozen times as long and prove no more."""


@pytest.fixture(scope="session")
def example_files(tmp_path_factory, tiny_clip) -> Path:
    """`work`, the files that documents name, and `hub`, a Hugging Face cache with the models that they name."""
    from example_files import write_example_files, write_pretrained
    from tiny_clip import REPO, fill_hub_cache

    root = tmp_path_factory.mktemp("documents")
    fill_hub_cache(root / "hub", REPO, tiny_clip)
    for model in CACHED:
        write_pretrained(root / "hub", model, root / "scratch")
    (root / "work").mkdir()
    write_example_files(root / "work")
    return root


@pytest.fixture
def reader(example_files, tmp_path, monkeypatch) -> Path:
    """The working directory of somebody who has everything that the documents name, but no connection."""
    for name in [name for name in os.environ if name.startswith("NAYER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(example_files / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(example_files / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in (f"{model}.{tag}" for model, tag in CACHED.items()):
        monkeypatch.setitem(registry, name, replace(registry[name], **SMALL))
    folder = tmp_path / "work"
    shutil.copytree(example_files / "work", folder)
    for path, content in (file for page in documents.PAGES for file in documents.named_files(page)):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    return folder


def small(words: list[str]) -> dict[str, int]:
    """Settings of the method that a line uses: a small batch and a small generator, where it has them."""
    default = "zeroq" if "ptq" in words else "nayer"
    method = next((name for option, name in pairwise(words) if option == "--method"), default)
    known = {field.name for field in fields(plugins.load("methods", method).Config)}
    return {key: value for key, value in {"batch": 10, "width": 8}.items() if key in known}


def shorten(words: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Make long jobs short without a change of what they were told: small batches, one step of each phase."""
    if words[0] == "study":
        return words if {"--print", "--table"}.intersection(words) else [*words, "--print"]
    if words[0] == "bench":
        monkeypatch.setattr("nayer_cli.machine.turns.TURN", 0.0)
        return words if "--repeats" in words else [*words, "--repeats", "6"]
    if words[0] == "sample" and "--model" in words:
        monkeypatch.setenv("NAYER_SET", "method.batch=2 method.g_steps=1")
        return [*words, "--count", "2"]
    if words[0] not in ("distill", "train", "quantize") or "--resume" in words:
        return words
    monkeypatch.setenv("NAYER_BATCH_SIZE", "4")
    monkeypatch.setattr("nayer_cli.runs.forecast.PIXELS", 1)
    if words[0] != "train":
        monkeypatch.setenv("NAYER_SET", " ".join(f"method.{key}={value}" for key, value in small(words).items()))
    return words if "--dry-run" in words else [*words, "--dry-run"]


@pytest.mark.parametrize("line", LINES, ids=str)
def test_a_documented_command_runs(line, reader, monkeypatch, capsys):
    words = list(takewhile(lambda word: word not in SHELL, shlex.split(line.text, comments=True)))[1:]
    for flag, path in pairwise(words):
        if flag in ("--out", "-o") and Path(path).is_dir():
            shutil.rmtree(path)  # a line that makes it is read before it is there
    code = main(shorten(words, monkeypatch))
    out, err = capsys.readouterr()
    # Networks with random weights are held to gates that are meant for good ones.
    assert code == 0 or (code == 1 and GATES.intersection(words)), f"{line.text}\n{err}"
    assert out


@pytest.mark.parametrize("snippet", SNIPPETS, ids=str)
def test_documented_code_runs(snippet, reader, monkeypatch):
    monkeypatch.setenv("NAYER_BATCH_SIZE", "4")
    exec(compile(snippet.text, str(snippet), "exec"), {})


@pytest.mark.parametrize("page", [*documents.PAGES, documents.ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    assert list(documents.broken_links(page)) == []


def test_every_page_is_reachable_from_the_readme():
    seen, todo = set(), [documents.ROOT / "README.md"]
    while todo:
        page = todo.pop().resolve()
        if page not in seen and page.suffix == ".md" and page.exists():
            seen.add(page)
            links = documents.LINK.findall(page.read_text(encoding="utf-8"))
            todo += [page.parent / link.partition("#")[0] for link in links if "://" not in link]
    adopted = {page.resolve() for page in documents.PAGES if not page.stat().st_size} | {
        documents.ROOT / "docs" / "index.md"
    }
    assert {page.resolve() for page in documents.PAGES} - seen == adopted


def test_every_page_is_in_the_contents_of_the_site():
    listed = set(documents.blocks(documents.ROOT / "docs" / "index.md"))
    names = {line for block in listed for line in block.text.splitlines() if line and not line.startswith(":")}
    pages = {str(page.relative_to(documents.ROOT / "docs").with_suffix("")) for page in documents.PAGES[2:]}
    assert names == pages - {"index"}


def test_the_table_of_presets_says_what_the_files_say():
    (_, *names, _), *rows = documents.table(documents.ROOT / "docs" / "guides" / "presets.md")
    described = [config.DistillConfig, ""], [plugins.load("methods", "nayer").Config, "method."]
    defaults = {key: about["default"] for schema, prefix in described for key, about in config.describe(schema, prefix)}
    presets = {name: defaults | config.read_preset(name, "nayer") for name in names}
    shown = {key.strip("`"): values for key, *values, _ in rows}
    for key, values in shown.items():
        for name, value in zip(names, values, strict=True):
            assert toml.parse_assignment(f"x={value}")[1] == presets[name][key], f"{key} of {name}"
    hyper_parameters = ("schedule.", "optimizer.", "augment.", "method.")
    given = {key for name in names for key in config.read_preset(name, "nayer")}
    assert {key for key in given if key.startswith(hyper_parameters)} <= shown.keys()


@pytest.mark.parametrize(
    "name",
    [
        "nayer_cli.model:load_classifier",
        "nayer_cli.model:new_network",
        "nayer_cli.pictures:fit",
        "nayer_cli.quant.onnx_writer:write_onnx",
        "nayer_cli.models",
        "nayer_cli.models._network:Network",
        "nayer_cli.encoder:Encoder",
        "nayer_cli.dataset:DatasetFacts",
        "nayer_cli.source:Source",
    ],
)
def test_documented_names_outlive_a_move(name: str) -> None:
    module, _, attribute = name.partition(":")
    assert hasattr(import_module(module), attribute or "__name__")
