"""A hub on this machine that serves one model folder the way huggingface.co does, and can fail in the middle."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest

from nayer_cli.storage.hub import PIECE
from tiny_clip import COMMIT

Answer = Callable[[BaseHTTPRequestHandler, bytes], None]
"""What happens instead of sending the content."""
CLOSING = Event()


@contextmanager
def serve(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Run a server for the block; yields its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    CLOSING.clear()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        CLOSING.set()
        server.shutdown()
        server.server_close()


def use_hub(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Let this process find the hub at an address, or nothing where nobody answers."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    template = f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


def hub_of(repo: str, folder: Path, faults: Mapping[str, Answer] | None = None) -> type[BaseHTTPRequestHandler]:
    """Return a handler that knows model `repo`, with the files of `folder`, and no other.

    Args:
        repo: `ORG/NAME`.
        folder: the files.
        faults: what fails: method and end of the path, such as `GET config.json`, and what happens then.
    """

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def _answer(self, body: bool) -> None:
            path = self.path.partition("?")[0]
            prefix = f"/{repo}/resolve/"
            file = folder / path.removeprefix(prefix).partition("/")[2]
            if path == "/":
                content = b"hub"
            elif path.startswith(f"/api/models/{repo}/tree/"):
                content = json.dumps(_tree(folder)).encode()
            elif path.startswith(f"/api/models/{repo}"):
                content = json.dumps(_info(repo, folder)).encode()
            elif path.startswith(prefix) and file.is_file():
                content = file.read_bytes()
            else:
                what = "EntryNotFound" if path.startswith(prefix) else "RepoNotFound"
                self._send(404, b"", {"X-Error-Code": what, "X-Repo-Commit": COMMIT}, body)
                return
            for which, fault in (faults or {}).items():
                method, _, end = which.partition(" ")
                if self.command == method and path.endswith(end):
                    fault(self, content)
                    return
            self._send(200, content, {"X-Repo-Commit": COMMIT, "ETag": f'"{_blob_id(content)}"'}, body)

        def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Stay silent."""

    return Hub


def cut(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """Send half of the file, and close the connection."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[: len(content) // 2])
    handler.close_connection = True


def hang(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """Send half of the file, and then nothing, but keep the connection."""
    cut(handler, content)
    CLOSING.wait()


def silent(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """Accept the request, and never answer."""
    CLOSING.wait()


def piecemeal(cache: Path) -> Answer:
    """Return what sends a file in pieces, each as soon as something new has arrived in the client's cache."""

    def answer(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        for start in range(0, len(content), PIECE):
            before = _bytes(cache)
            handler.wfile.write(content[start : start + PIECE])
            is_last = start + PIECE >= len(content)
            while not is_last and _bytes(cache) == before and not CLOSING.wait(0.01):
                pass

    return answer


def refuse(status: int) -> Answer:
    """Answer with `status`."""

    def answer(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def answering(status: int) -> type[BaseHTTPRequestHandler]:
    """Return a handler that answers everything with `status`."""

    class Always(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            refuse(status)(self, b"")

        do_GET = do_CONNECT = do_HEAD  # noqa: N815 - the names that http.server looks for

        def log_message(self, format: str, *args: object) -> None:
            """Stay silent."""

    return Always


def _bytes(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # it has just got its final name
            size += path.lstat().st_size
    return size


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _info(repo: str, folder: Path) -> dict[str, object]:
    names = [{"rfilename": path.relative_to(folder).as_posix()} for path in _files(folder)]
    return {"id": repo, "modelId": repo, "sha": COMMIT, "siblings": names, "tags": [], "private": False}


def _tree(folder: Path) -> list[dict[str, object]]:
    return [
        {
            "type": "file",
            "path": path.relative_to(folder).as_posix(),
            "size": path.stat().st_size,
            "oid": _blob_id(path.read_bytes()),
        }
        for path in _files(folder)
    ]


def _blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
