"""No network, a proxy, a hub that refuses, breaks off or falls silent: an end without long waits, with the ways out."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from nayer_cli.__main__ import main
from nayer_cli.classifiers.model import load_classifier, new_network, save_classifier
from nayer_cli.classifiers.pretrained import fetch_url
from nayer_cli.config import ModelConfig
from nayer_cli.errors import EnvironmentFault, InputError
from nayer_cli.storage import hub
from tiny_clip import COMMIT, REPO, fill_hub_cache
from tiny_hub import Answer, answering, cut, hang, hub_of, piecemeal, refuse, serve, silent, use_hub

TEACHER = "mylab/wrn"
CLOSED = "http://127.0.0.1:9"
WEIGHTS = "0_CLIPModel/model.safetensors"
BOUND = 10.0
"""Seconds that a command may sleep in all; the hub's own client sleeps for 66 between its attempts."""


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier as it lies on the hub."""
    folder = tmp_path_factory.mktemp("hub") / "wrn"
    save_classifier(folder, new_network(ModelConfig("wrn_16_1"), 10), card="", extra={})
    return folder


COMMANDS = {
    REPO: ["embed", "--labels", "cifar10", "--encoder", "clip"],
    "timm/resnet50.a1_in1k": ["eval", "resnet50", "--data", "digits"],
    TEACHER: ["distill", "--teacher", f"hf-hub:{TEACHER}", "--student", "wrn_16_1", "--preset", "cifar10"],
}


def fails(command: list[str], code: int, *words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """A command ends with `code` and a message that holds `words`, and hardly sleeps; return the message."""
    with pytest.MonkeyPatch.context() as patch:
        slept: list[float] = []
        patch.setattr("time.sleep", slept.append)
        assert main(command) == code
    assert sum(slept) < BOUND
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err
    for word in words:
        assert word in err
    return err


@pytest.mark.parametrize("repo", COMMANDS)
def test_switched_off(repo: str, hub_cache: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    fails(COMMANDS[repo], 3, repo, str(hub_cache), "switched off (HF_HUB_OFFLINE)", "hint: run", capsys=capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("hub_cache")
@pytest.mark.parametrize("repo", COMMANDS)
def test_no_network(repo: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    use_hub(monkeypatch, CLOSED)
    fails(COMMANDS[repo], 3, repo, f"{CLOSED} cannot be reached: ", "Connection refused", "hint: run", capsys=capsys)


@pytest.mark.usefixtures("hub_cache")
def test_a_name_that_nobody_resolves(monkeypatch, capsys) -> None:
    use_hub(monkeypatch, "http://hub.invalid")
    fails(COMMANDS[REPO], 3, REPO, "http://hub.invalid cannot be reached", capsys=capsys)


@pytest.mark.usefixtures("hub_cache")
@pytest.mark.parametrize("repo", COMMANDS)
@pytest.mark.parametrize("word", ["407 Proxy Authentication Required", "Connection refused"])
def test_a_proxy_that_refuses_or_is_gone(repo: str, word: str, monkeypatch, capsys) -> None:
    use_hub(monkeypatch, "http://hub.example")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with serve(answering(407)) as endpoint:
        proxy = endpoint if "407" in word else CLOSED
        monkeypatch.setenv("http_proxy", proxy.replace("//", "//me:secret@"))
        assert "secret" not in fails(COMMANDS[repo], 3, "through the proxy 127.0.0.1", word, capsys=capsys)


@pytest.mark.usefixtures("hub_cache")
@pytest.mark.parametrize("repo", [REPO, TEACHER])
def test_what_the_hub_does_not_have(repo: str, tiny_clip: Path, monkeypatch, capsys) -> None:
    with serve(hub_of("other/model", tiny_clip)) as endpoint:
        use_hub(monkeypatch, endpoint)
        fails(COMMANDS[repo], 2, "the hub has no model", repo, capsys=capsys)


@pytest.mark.usefixtures("hub_cache")
def test_a_repository_without_the_files(tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "README.md").write_text("nothing here")
    for repo, what in ((REPO, "not a sentence-transformers model"), (TEACHER, "the hub has no model")):
        with serve(hub_of(repo, tmp_path)) as endpoint:
            use_hub(monkeypatch, endpoint)
            fails(COMMANDS[repo], 2, what, capsys=capsys)


@pytest.mark.usefixtures("hub_cache")
@pytest.mark.parametrize("status", [500, 403])
def test_a_hub_that_refuses_a_file(status: int, teacher: Path, monkeypatch, capsys) -> None:
    with serve(hub_of(TEACHER, teacher, {"GET model.safetensors": refuse(status)})) as endpoint:
        use_hub(monkeypatch, endpoint)
        fails(COMMANDS[TEACHER], 3, "did not deliver it", str(status), "--teacher-weights", capsys=capsys)


def test_the_cache_serves_where_the_hub_does_not(hub_cache: Path, teacher: Path, monkeypatch) -> None:
    fill_hub_cache(hub_cache, TEACHER, teacher)
    with serve(hub_of(TEACHER, teacher, {"HEAD config.json": refuse(403)})) as endpoint:
        use_hub(monkeypatch, endpoint)
        assert load_classifier(ModelConfig(f"hf-hub:{TEACHER}")).num_classes == 10


def test_a_damaged_copy_is_named(hub_cache: Path, teacher: Path, capsys) -> None:
    weights = fill_hub_cache(hub_cache, TEACHER, teacher) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    fails(COMMANDS[TEACHER], 2, "timm cannot load 'wrn_16_1'", f"remove {weights.parent}", capsys=capsys)


def snapshot(faults: Mapping[str, Answer], folder: Path, cache: Path, **env: str) -> tuple[int, str]:
    """Ask for a text encoder in a process of its own; return its exit code and what it said.

    The hub answers until the process has ended: one that waits for a hub that is silent would never end.
    """
    code = (
        "import sys\n"
        "from nayer_cli.lte import download\nfrom nayer_cli.errors import NayerError\n"
        "try: print(download.snapshot(sys.argv[1], 'clip'))\n"
        "except NayerError as error: print(error, error.hint); sys.exit(error.exit_code)"
    )
    with serve(hub_of(REPO, folder, faults)) as endpoint:
        env = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": endpoint, "HF_HUB_CACHE": str(cache), **env}
        done = subprocess.run([sys.executable, "-c", code, REPO], env=env, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout.strip()


def test_nothing_waits_longer_than_ten_seconds(tmp_path: Path, tiny_clip: Path) -> None:
    assert hub.PATIENCE + hub.STALL < 10
    code, text = snapshot({f"GET {WEIGHTS}": hang}, tiny_clip, tmp_path)
    assert code == EnvironmentFault.exit_code
    for words in (REPO, f"nothing arrived for {hub.STALL:g} s", "--encoder /path/to/model", "sbert-offline"):
        assert words in text


@pytest.mark.parametrize(
    ("where", "fault"),
    [(f"GET {WEIGHTS}", cut), (f"GET {WEIGHTS}", silent), ("HEAD modules.json", silent), ("GET main", silent)],
)
def test_a_download_that_breaks_off_is_given_up(where: str, fault: Answer, tmp_path: Path, tiny_clip: Path) -> None:
    code, text = snapshot({where: fault}, tiny_clip, tmp_path, HF_HUB_DOWNLOAD_TIMEOUT="1")
    assert code == EnvironmentFault.exit_code
    assert "downloading it failed" in text


def test_half_a_file_is_never_used_and_the_next_download_is_whole(tmp_path: Path, tiny_clip: Path) -> None:
    assert snapshot({f"GET {WEIGHTS}": cut}, tiny_clip, tmp_path, HF_HUB_DOWNLOAD_TIMEOUT="60")[0] == 3
    assert not list(tmp_path.rglob("*/snapshots/*/" + WEIGHTS))
    assert (
        f"only partly (no {WEIGHTS.replace('model.', '*.')})"
        in snapshot({}, tiny_clip, tmp_path, HF_HUB_OFFLINE="1")[1]
    )
    code, folder = snapshot({}, tiny_clip, tmp_path)
    assert code == 0
    assert (Path(folder) / WEIGHTS).read_bytes() == (tiny_clip / WEIGHTS).read_bytes()


def test_what_is_slow_but_comes_forward_is_not_given_up(tmp_path: Path, tiny_clip: Path) -> None:
    cache = tmp_path / f"models--{REPO.replace('/', '--')}"
    faults = {f"GET {WEIGHTS}": piecemeal(cache)}  # were a piece not seen in the cache, no other would come
    code, folder = snapshot(faults, tiny_clip, tmp_path, HF_HUB_DOWNLOAD_TIMEOUT="60")
    assert (code, Path(folder).name) == (0, COMMIT)


@pytest.mark.parametrize("fault", [cut, refuse(404)])
def test_old_weights_outside_the_hub(fault: Answer, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "torch"))
    content = bytes(100_000)
    name = f"old-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / name).write_bytes(content)
    with serve(hub_of(TEACHER, tmp_path / "served", {f"GET {name}": fault})) as endpoint:
        url = f"{endpoint}/{TEACHER}/resolve/main/{name}"
        with pytest.raises(EnvironmentFault, match=f"'old' is not in .*{url} did not deliver it"):
            fetch_url("old", url)
        assert not list((tmp_path / "torch").rglob("*.pth"))
    with serve(hub_of(TEACHER, tmp_path / "served")) as endpoint:
        path = fetch_url("old", f"{endpoint}/{TEACHER}/resolve/main/{name}")
    assert path.read_bytes() == content
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert fetch_url("old", f"http://nowhere.invalid/{name}") == path
    with pytest.raises(EnvironmentFault, match="switched off"):
        fetch_url("old", "http://nowhere.invalid/other.pth")


def test_a_name_that_cannot_be_a_repository() -> None:
    with pytest.raises(InputError, match="the hub has no model 'hf-hub:a/b/c'"):
        load_classifier(ModelConfig("hf-hub:a/b/c"))
