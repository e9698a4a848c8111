"""Files of the Hugging Face hub: from its cache, or downloaded without long waits.

The hub's own client retries for more than a minute where nothing comes, and in places waits for ever. Here one short
look decides whether the hub may be asked at all, and a download ends when nothing arrives in the cache any more.
"""

import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import TypeVar
from urllib.parse import urlsplit

from nayer_cli.errors import EnvironmentFault, InputError
from nayer_cli.modelfolder import missing_files

T = TypeVar("T")

PATIENCE = 3.0
"""Seconds that the hub has to answer at all."""
STALL = 6.0
"""Seconds without anything new after which a download is given up; the variable HF_HUB_DOWNLOAD_TIMEOUT goes before."""
LOOK = 0.2
"""Seconds between two looks at what has arrived."""
PIECE = 2**16
"""Bytes that the client gathers before it writes."""

NOT_NEEDED = ["onnx/*", "openvino/*", "*.onnx", "*.h5", "*.msgpack", "*.ot", "*.tflite", "*.gguf"]


def snapshot(repo: str, spec: str) -> Path:
    """Return the folder of model `repo` (`ORG/NAME`) in the Hugging Face cache; its name is the commit.

    A complete copy in the cache is taken as it is; otherwise the model is downloaded.

    Args:
        repo: the model on the hub.
        spec: what the user wrote for it, for messages.

    Raises:
        EnvironmentFault: it is not in the cache, and the hub is switched off, cannot be reached, or does not deliver.
        InputError: `repo` is not on the hub, or no sentence-transformers model.

    """
    from huggingface_hub import constants

    folder = cached(repo)
    lacking = missing_files(folder) if folder else []
    if folder and not lacking:
        return folder
    state = f"only partly (no {lacking[0]})" if lacking else "not"
    what = f"text encoder '{spec}' ({repo}) is {state} in the Hugging Face cache {constants.HF_HUB_CACHE}"
    if reason := trouble():
        raise _unavailable(f"{what}, and {reason}")
    return _download(repo, what)


def cached(repo: str) -> Path | None:
    """Return the folder of `repo` in the Hugging Face cache, complete or not, or None.

    Raises:
        InputError: `repo` cannot be the name of a model.

    """
    from huggingface_hub import constants, try_to_load_from_cache

    try:
        found = try_to_load_from_cache(repo, "modules.json", cache_dir=constants.HF_HUB_CACHE)
    except ValueError as error:
        raise InputError(f"'{repo}' is neither a folder nor the name of a model: {error}") from error
    return Path(found).parent if isinstance(found, str) else None


def trouble() -> str:
    """Say why the hub cannot be asked, after at most `PATIENCE` seconds; empty if it answers."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "the hub is switched off (HF_HUB_OFFLINE)"
    reason = no_answer(constants.ENDPOINT)
    return reason and f"the hub {constants.ENDPOINT} cannot be reached{_through(constants.ENDPOINT)}: {reason}"


def no_answer(endpoint: str) -> str:
    """Say why no server answers at `endpoint` within `PATIENCE` seconds, look-up included; empty if one does."""
    reasons: list[str] = []
    # A thread, because a socket's time-out begins anew with every address, and does not cover their look-up.
    asking = Thread(target=lambda: reasons.append(_ask(endpoint)), daemon=True)
    asking.start()
    asking.join(PATIENCE)
    return reasons[0] if reasons else f"no answer within {PATIENCE:g} s"


def watched(work: Callable[[], T], folder: Path) -> T:
    """Let a thread do `work`, which downloads into `folder`, for as long as something new arrives there.

    Raises:
        TimeoutError: nothing came for `STALL` seconds; the thread is left to itself, and ends with the process.

    """
    limit = float(os.environ.get("HF_HUB_DOWNLOAD_TIMEOUT", STALL))
    done: Future[T] = Future()
    most, since = -1, monotonic()
    with _in_small_pieces():
        Thread(target=_settle, args=(done, work), daemon=True).start()
        while not wait([done], LOOK).done:
            # The most so far: a client that starts a file anew, again and again, does not come forward.
            if (size := _size(folder)) > most:
                most, since = size, monotonic()
            elif monotonic() - since > limit:
                raise TimeoutError(f"nothing arrived for {limit:g} s (HF_HUB_DOWNLOAD_TIMEOUT=60 waits longer)")
    return done.result()


def repo_folder(repo: str) -> Path:
    """Return where the cache keeps model `repo`."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE, f"models--{repo.replace('/', '--')}")


def first_line(error: BaseException) -> str:
    """Return what `error` says, without the advice that libraries add."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _ask(endpoint: str) -> str:
    try:
        request = urllib.request.Request(endpoint, method="HEAD")
        with urllib.request.build_opener().open(request, timeout=PATIENCE):  # urlopen would keep the first proxy
            return ""
    except urllib.error.HTTPError as error:
        # Any other refusal is an answer of the hub.
        return f"{error.code} {error.reason}" if error.code >= 500 or error.code == 407 else ""
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))


def _through(endpoint: str) -> str:
    """Name the proxy on the way, without its password."""
    parts = urlsplit(endpoint)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if not proxy or urllib.request.proxy_bypass(parts.hostname or ""):
        return ""
    return f" through the proxy {urlsplit(proxy).hostname}"


def _settle(done: "Future[T]", work: Callable[[], T]) -> None:
    try:
        done.set_result(work())
    except BaseException as error:  # raised again by the thread that waits
        done.set_exception(error)


@contextmanager
def _in_small_pieces() -> Iterator[None]:
    """Let the hub's client write what arrives at once, by plain HTTP: only so it can be seen in the cache."""
    from huggingface_hub import constants

    before = constants.DOWNLOAD_CHUNK_SIZE, constants.HF_HUB_DISABLE_XET
    constants.DOWNLOAD_CHUNK_SIZE, constants.HF_HUB_DISABLE_XET = PIECE, True
    try:
        yield
    finally:
        constants.DOWNLOAD_CHUNK_SIZE, constants.HF_HUB_DISABLE_XET = before


def _size(folder: Path) -> int:
    """Return bytes and entries below `folder`."""
    size = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # it has just got its final name
            size += 1 + path.lstat().st_size
    return size


def _download(repo: str, what: str) -> Path:
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return watched(partial(_fetch_all, repo), repo_folder(repo))
    except RepositoryNotFoundError as error:
        raise InputError(
            f"the hub has no model {repo}, or not for you",
            hint="check the name; 'hf auth login' opens private models; a folder works too",
        ) from error
    except Exception as error:  # the client passes on those of its HTTP library, and has changed that library
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            raise InputError(f"{repo} on the hub is no sentence-transformers model: it has no modules.json") from error
        raise _unavailable(f"{what}, and downloading it failed: {first_line(error)}") from error


def _fetch_all(repo: str) -> Path:
    """Download what a model needs, one file after another: threads of an executor would keep the process alive."""
    from huggingface_hub import HfApi, constants

    fetch = partial(HfApi(endpoint=constants.ENDPOINT).hf_hub_download, repo, cache_dir=constants.HF_HUB_CACHE)
    folder = Path(fetch("modules.json")).parent
    files = HfApi(endpoint=constants.ENDPOINT).list_repo_files(repo)
    twice = ["*.bin"] if any(file.endswith(".safetensors") for file in files) else []
    for file in files:
        if not any(fnmatch(file, pattern) for pattern in [*NOT_NEEDED, *twice]):
            fetch(file)
    return folder


def _unavailable(message: str) -> EnvironmentFault:
    return EnvironmentFault(
        message,
        hint="run 'nayer embed' once with a connection, or pass --encoder /path/to/model, or "
        "pip install 'nayer-cli[sbert-offline]' and use --encoder sbert",
    )
