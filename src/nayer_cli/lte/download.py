"""Text encoders of the Hugging Face hub: from its cache, or downloaded whole."""

from fnmatch import fnmatch
from functools import partial
from pathlib import Path

from nayer_cli.errors import EnvironmentFault, InputError
from nayer_cli.lte.modelfolder import missing_files
from nayer_cli.storage.hub import first_line, in_cache, repo_folder, trouble, watched

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
    folder, lacking = _look(repo)
    if folder and not lacking:
        return folder
    what = _what(repo, spec, lacking)
    if reason := trouble():
        raise _unavailable(f"{what}, and {reason}")
    return _download(repo, what)


def require(repo: str, spec: str) -> None:
    """Refuse, before anything is imported for it, a model that is not in the cache while the hub is out of reach.

    Raises:
        EnvironmentFault, InputError: as `snapshot` does.

    """
    folder, lacking = _look(repo)
    if (folder is None or lacking) and (reason := trouble()):
        raise _unavailable(f"{_what(repo, spec, lacking)}, and {reason}")


def _look(repo: str) -> tuple[Path | None, list[str]]:
    """Return the folder of `repo` in the cache, and what of it is missing."""
    folder = cached(repo)
    return folder, missing_files(folder) if folder else []


def _what(repo: str, spec: str, lacking: list[str]) -> str:
    from huggingface_hub import constants

    state = f"only partly (no {lacking[0]})" if lacking else "not"
    return f"text encoder '{spec}' ({repo}) is {state} in the Hugging Face cache {constants.HF_HUB_CACHE}"


def cached(repo: str) -> Path | None:
    """Return the folder of `repo` in the Hugging Face cache, complete or not, or None.

    Raises:
        InputError: `repo` cannot be the name of a model.

    """
    try:
        found = in_cache(repo, "modules.json")
    except ValueError as error:
        raise InputError(
            f"'{repo}' is neither a folder nor the name of a model: {error}",
            hint="for example: --encoder sentence-transformers/all-MiniLM-L6-v2, or a folder",
        ) from error
    return found.parent if found else None


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
            raise InputError(
                f"{repo} on the hub is not a sentence-transformers model: it has no modules.json",
                hint="choose a model that was saved with SentenceTransformer.save_pretrained",
            ) from error
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
