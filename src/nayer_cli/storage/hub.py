"""Files of the Hugging Face hub: from its cache, or downloaded without long waits.

The hub's own client retries for more than a minute where nothing comes, and in places waits for ever. Here one short
look decides whether the hub may be asked at all, and a download ends when nothing arrives in the cache any more.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")

PATIENCE = 3.0
"""Seconds that the hub has to answer at all."""
STALL = 6.0
"""Seconds without anything new after which a download is given up; the variable HF_HUB_DOWNLOAD_TIMEOUT goes before."""
LOOK = 0.2
"""Seconds between two looks at what has arrived."""
PIECE = 2**16
"""Bytes that the client gathers before it writes."""


def trouble() -> str:
    """Say why the hub cannot be asked, after at most `PATIENCE` seconds; empty if it answers."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "the hub is switched off (HF_HUB_OFFLINE)"
    reason = no_answer(constants.ENDPOINT)
    return reason and f"the hub {constants.ENDPOINT} cannot be reached{_through(constants.ENDPOINT)}: {reason}"


def in_cache(repo: str, file: str, revision: str | None = None) -> Path | None:
    """Return a file of model `repo` in the Hugging Face cache, or None; raises ValueError if no model is called so."""
    from huggingface_hub import constants, try_to_load_from_cache

    found = try_to_load_from_cache(repo, file, cache_dir=constants.HF_HUB_CACHE, revision=revision)
    return Path(found) if isinstance(found, str) else None


def no_answer(endpoint: str) -> str:
    """Say why no server answers at `endpoint` within `PATIENCE` seconds, look-up included; empty if one does."""
    reasons: list[str] = []
    # A thread, because a socket's time-out begins anew with every address, and does not cover their look-up.
    asking = Thread(target=lambda: reasons.append(_ask(endpoint)), daemon=True)
    asking.start()
    asking.join(PATIENCE)
    return reasons[0] if reasons else _silence()


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
    import urllib.error  # takes a moment, and help pages ask nothing
    import urllib.request

    try:
        request = urllib.request.Request(endpoint, method="HEAD")
        with urllib.request.build_opener().open(request, timeout=PATIENCE):  # urlopen would keep the first proxy
            return ""
    except urllib.error.HTTPError as error:
        # Any other refusal is an answer of the hub.
        return f"{error.code} {error.reason}" if error.code >= 500 or error.code == 407 else ""
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return _silence() if isinstance(reason, TimeoutError) else str(reason)


def _silence() -> str:
    return f"no answer within {PATIENCE:g} s"


def _through(endpoint: str) -> str:
    """Name the proxy on the way, without its password."""
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(endpoint)
    proxy = getproxies().get(parts.scheme)
    if not proxy or proxy_bypass(parts.hostname or ""):
        return ""
    return f" through the proxy {urlsplit(proxy).hostname}"


def _settle(done: "Future[T]", work: Callable[[], T]) -> None:
    try:
        done.set_result(work())
    except BaseException as error:  # raised again by the thread that waits
        done.set_exception(error)


@contextmanager
def _in_small_pieces() -> Iterator[None]:
    """Let the hub's client write at once what arrives, over plain HTTP, so that progress shows in the cache."""
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
