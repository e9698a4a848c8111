import concurrent.futures
import os
import socket
import subprocess
import sys
from concurrent.futures import Future
from concurrent.futures._base import DoneAndNotDoneFutures
from itertools import count
from pathlib import Path
from threading import Event

import pytest

from nayer_cli.errors import EnvironmentFault, InputError
from nayer_cli.lte import download
from nayer_cli.storage import hub
from tiny_clip import COMMIT, REPO, fill_hub_cache
from tiny_hub import answering, hub_of, serve


def use_hub(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)


def test_a_cached_model_is_found_without_the_hub(hub_cache: Path, tiny_clip: Path) -> None:
    filled = fill_hub_cache(hub_cache, REPO, tiny_clip)
    assert download.snapshot(REPO, "clip") == filled
    assert filled.name == COMMIT


def test_the_fault_says_what_is_missing_and_the_ways_out(hub_cache: Path) -> None:
    with pytest.raises(EnvironmentFault) as fault:
        download.snapshot(REPO, "clip")
    for part in ("'clip'", REPO, str(hub_cache), "HF_HUB_OFFLINE"):
        assert part in str(fault.value)
    assert fault.value.hint is not None
    assert "sbert-offline" in fault.value.hint and "--encoder /path" in fault.value.hint


def test_a_half_downloaded_model_is_not_used(hub_cache: Path, tiny_clip: Path) -> None:
    filled = fill_hub_cache(hub_cache, REPO, tiny_clip)
    (filled / "0_CLIPModel" / "model.safetensors").unlink()
    with pytest.raises(EnvironmentFault, match=r"only partly \(no 0_CLIPModel/\*\.safetensors\)"):
        download.snapshot(REPO, "clip")


def test_an_unreachable_hub_is_told(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub(monkeypatch, "http://127.0.0.1:9")
    with pytest.raises(EnvironmentFault, match=r"127.0.0.1:9 cannot be reached"):
        download.snapshot(REPO, "clip")


def test_a_silent_hub_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert hub.no_answer(f"http://127.0.0.1:{server.getsockname()[1]}") == "no answer within 0.2 s"


@pytest.mark.parametrize(
    ("status", "reason"), [(200, ""), (404, ""), (503, "503 Service Unavailable"), (407, "407 Proxy Authent")]
)
def test_any_answer_but_that_of_a_broken_server_or_a_proxy_will_do(status: int, reason: str) -> None:
    with serve(answering(status)) as endpoint:
        assert hub.no_answer(endpoint).startswith(reason)
        assert bool(hub.no_answer(endpoint)) is bool(reason)


def watched(sizes: list[int], folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Watch work that ends when, 0.2 s apart, `folder` has had each of these sizes; no time passes."""
    left, finish, now = iter(sizes), Event(), count(0.0, 0.2)
    look = {"seconds": 0.0}

    def wait(futures: list[Future[str]], seconds: float) -> DoneAndNotDoneFutures[str]:
        size, look["seconds"] = next(left, None), next(now)
        if size is None:
            finish.set()
            return concurrent.futures.wait(futures)
        (folder / "file").write_bytes(bytes(size))
        return DoneAndNotDoneFutures(set(), set(futures))

    monkeypatch.setattr(hub, "STALL", 0.5)
    monkeypatch.setattr(hub, "wait", wait)
    monkeypatch.setattr(hub, "monotonic", lambda: look["seconds"])
    try:
        return hub.watched(lambda: "done" if finish.wait() else "", folder)
    finally:
        finish.set()


def test_work_goes_on_for_as_long_as_something_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert watched([1, 2, 3, 3, 3, 4, 5, 6], tmp_path, monkeypatch) == "done"
    with pytest.raises(TimeoutError, match=r"nothing arrived for 0.5 s"):  # a file begun anew again and again
        watched([1, 2, 1, 2, 1, 2], tmp_path, monkeypatch)


def test_what_the_thread_raises_is_raised_here(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        hub.watched(lambda: 1 // 0, tmp_path / "absent")  # type: ignore[arg-type, return-value]


def test_the_client_gets_its_settings_back(tmp_path: Path) -> None:
    from huggingface_hub import constants

    before = constants.DOWNLOAD_CHUNK_SIZE
    assert hub.watched(lambda: constants.DOWNLOAD_CHUNK_SIZE, tmp_path) == hub.PIECE < before
    assert before == constants.DOWNLOAD_CHUNK_SIZE


def fetch(repo: str, cache: Path, endpoint: str) -> subprocess.CompletedProcess[str]:
    """Ask for `repo` in a process of its own: huggingface_hub reads its environment only once."""
    code = (
        "import sys\nfrom nayer_cli.lte import download\nfrom nayer_cli.errors import NayerError\n"
        "try: print(download.snapshot(sys.argv[1], 'tiny'))\n"
        "except NayerError as error: print(error); sys.exit(error.exit_code)"
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": endpoint, "HF_HUB_CACHE": str(cache)}
    return subprocess.run([sys.executable, "-c", code, repo], env=env, capture_output=True, text=True)


def test_a_missing_model_is_downloaded_once(tmp_path: Path, tiny_clip: Path) -> None:
    with serve(hub_of(REPO, tiny_clip)) as endpoint:
        first = fetch(REPO, tmp_path, endpoint)
    assert first.returncode == 0, first.stderr
    assert Path(first.stdout.strip()).name == COMMIT
    assert fetch(REPO, tmp_path, endpoint).stdout == first.stdout  # the hub is gone by now


def test_a_partial_download_is_completed(tmp_path: Path, tiny_clip: Path) -> None:
    lacking = fill_hub_cache(tmp_path, REPO, tiny_clip) / "0_CLIPModel" / "vocab.json"
    lacking.unlink()
    with serve(hub_of(REPO, tiny_clip)) as endpoint:
        assert fetch(REPO, tmp_path, endpoint).returncode == 0
    assert lacking.is_file()


def test_a_model_that_the_hub_does_not_have_is_an_input_error(tmp_path: Path, tiny_clip: Path) -> None:
    with serve(hub_of(REPO, tiny_clip)) as endpoint:
        answer = fetch("nobody/nothing", tmp_path, endpoint)
    assert answer.returncode == InputError.exit_code
    assert "the hub has no model nobody/nothing" in answer.stdout


def test_what_cannot_be_a_model_name_is_an_input_error(hub_cache: Path) -> None:
    with pytest.raises(InputError, match="neither a folder nor the name of a model"):
        download.snapshot("a/b/c d", "a/b/c d")
