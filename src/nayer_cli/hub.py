"""Models of the hub: from the Hugging Face cache where it has them, else downloaded.

The hub's own client retries for more than a minute when there is no network. Here one short look decides.
"""

import urllib.error
import urllib.request
from pathlib import Path
from threading import Thread

from nayer_cli.errors import EnvironmentFault, InputError
from nayer_cli.modelfolder import missing_files

PATIENCE = 3.0
"""Seconds that the hub has to answer."""

NOT_NEEDED = ["onnx/*", "openvino/*", "*.onnx", "*.h5", "*.msgpack", "*.ot", "*.tflite", "*.gguf"]


def snapshot(repo: str, spec: str) -> Path:
    """Return the folder of model `repo` (`ORG/NAME`) in the Hugging Face cache; its name is the commit.

    A complete copy in the cache is taken as it is; otherwise the model is downloaded.

    Args:
        repo: the model on the hub.
        spec: what the user wrote for it, for messages.

    Raises:
        EnvironmentFault: it is not in the cache, and the hub cannot be reached or is switched off.
        InputError: `repo` is not on the hub.

    """
    from huggingface_hub import constants

    folder = cached(repo)
    lacking = missing_files(folder) if folder else []
    if folder and not lacking:
        return folder
    state = f"only partly (no {lacking[0]})" if lacking else "not"
    what = f"text encoder '{spec}' ({repo}) is {state} in the Hugging Face cache {constants.HF_HUB_CACHE}"
    if constants.HF_HUB_OFFLINE:
        raise _unavailable(f"{what}, and the hub is switched off (HF_HUB_OFFLINE)")
    if not reachable(constants.ENDPOINT):
        raise _unavailable(f"{what}, and the hub {constants.ENDPOINT} cannot be reached")
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


def reachable(endpoint: str) -> bool:
    """Whether a server answers at `endpoint` within `PATIENCE` seconds, name resolution included."""
    answers: list[int] = []
    # A thread, because a socket's time-out begins anew with every address, and does not cover their look-up.
    asking = Thread(target=_ask, args=(endpoint, answers), daemon=True)
    asking.start()
    asking.join(PATIENCE)
    return any(status < 500 for status in answers)


def _ask(endpoint: str, answers: list[int]) -> None:
    try:
        request = urllib.request.Request(endpoint, method="HEAD")
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            answers.append(answer.status)
    except urllib.error.HTTPError as error:
        answers.append(error.code)  # a refusal is an answer too
    except (OSError, ValueError):
        return  # no answer


def _download(repo: str, what: str) -> Path:
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import RepositoryNotFoundError

    api = HfApi(endpoint=constants.ENDPOINT)
    try:
        files = api.list_repo_files(repo)
        twice = ["*.bin"] if any(file.endswith(".safetensors") for file in files) else []
        folder = api.snapshot_download(repo, cache_dir=constants.HF_HUB_CACHE, ignore_patterns=[*NOT_NEEDED, *twice])
        return Path(folder)
    except RepositoryNotFoundError as error:
        raise InputError(
            f"the hub has no model {repo}, or not for you",
            hint="check the name; 'hf auth login' opens private models; a folder works too",
        ) from error
    except Exception as error:  # the client passes on those of its HTTP library, and has changed that library
        raise _unavailable(f"{what}, and downloading it failed: {error}") from error


def _unavailable(message: str) -> EnvironmentFault:
    return EnvironmentFault(
        message,
        hint="run 'nayer embed' once with a connection, or pass --encoder /path/to/model, or "
        "pip install 'nayer-cli[sbert-offline]' and use --encoder sbert",
    )
