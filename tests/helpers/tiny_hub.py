"""A hub on this machine that serves one model folder the way huggingface.co does."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from tiny_clip import COMMIT


@contextmanager
def serve(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Run a server for the block; yields its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def hub_of(repo: str, folder: Path) -> type[BaseHTTPRequestHandler]:
    """Return a handler that knows model `repo`, with the files of `folder`, and no other."""

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def _answer(self, body: bool) -> None:
            path = self.path.partition("?")[0]
            prefix = f"/{repo}/resolve/"
            if path == "/":
                content = b"hub"
            elif path.startswith(f"/api/models/{repo}/tree/"):
                content = json.dumps(_tree(folder)).encode()
            elif path.startswith(f"/api/models/{repo}"):
                content = json.dumps(_info(repo, folder)).encode()
            elif path.startswith(prefix):
                content = (folder / path.removeprefix(prefix).partition("/")[2]).read_bytes()
            else:
                self._send(404, b"", {"X-Error-Code": "RepoNotFound"}, body)
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


def answering(status: int) -> type[BaseHTTPRequestHandler]:
    """Return a handler that answers everything with `status`."""

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Stay silent."""

    return Answer


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
