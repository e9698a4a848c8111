"""Text encoders of the Hugging Face hub: from its cache, or downloaded whole."""

from fnmatch import fnmatch
from functools import partial
from pathlib import Path

from nayer_cli.errors import EnvironmentFault, InputError
from nayer_cli.lte.modelfolder import missing_files
from nayer_cli.storage.hub import first_line, repo_folder, trouble, watched

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
        raise InputError(
            f"'{repo}' is neither a folder nor the name of a model: {error}",
            hint="for example: --encoder sentence-transformers/all-MiniLM-L6-v2, or a folder",
        ) from error
    return Path(found).parent if isinstance(found, str) else None


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
