"""Classifiers of the Hugging Face hub: fetched into its cache without long waits, with errors for people."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from urllib.parse import urlsplit

import torch
from huggingface_hub import constants, errors, hf_hub_download

from nayer_cli.classifiers.names import WAYS_OUT, not_in_cache
from nayer_cli.classifiers.sealed import sealed
from nayer_cli.errors import EnvironmentFault, InputError, NayerError
from nayer_cli.storage import hub

ABSENT = (
    errors.RepositoryNotFoundError,
    errors.RevisionNotFoundError,
    errors.EntryNotFoundError,
    errors.HFValidationError,
)


def fetch(name: str, repo: str, files: Sequence[str]) -> Path:
    """Return the first of `files` that `repo` has: the hub's newest, or the cache's where the hub does not deliver.

    Args:
        name: the model as the user calls it, for messages.
        repo: `ORG/NAME` or `ORG/NAME@REVISION`.
        files: names in the repository, best first.

    Raises:
        EnvironmentFault: none is in the cache, and the hub is switched off, cannot be reached, or does not deliver.
        InputError: the hub has no such repository or file.

    """
    repo, _, revision = repo.partition("@")
    find = partial(_first, repo, files, revision or None)
    try:
        reason, path = _ask(find, hub.repo_folder(repo))
        return path or find(local_files_only=True)
    except errors.LocalEntryNotFoundError as error:
        raise not_in_cache(name, files[0], repo, reason) from error
    except ABSENT as error:
        raise InputError(
            f"the hub has no model '{name}', or not for you: {hub.first_line(error)}",
            hint="check the name; 'hf auth login' opens private and gated models",
        ) from error


def fetch_url(name: str, url: str) -> Path:
    """Return the file of `url`, from torch's cache or downloaded to it: where timm has old weights outside the hub.

    The digest in the file's name is checked.

    Raises:
        EnvironmentFault: it is not in the cache, and the hub is switched off, or the address does not deliver.

    """
    path = Path(torch.hub.get_dir(), "checkpoints", Path(urlsplit(url).path).name)
    if path.is_file():
        return path
    what = f"'{name}' is not in torch's cache {path.parent}, and"
    if constants.HF_HUB_OFFLINE:
        raise EnvironmentFault(f"{what} downloads are switched off (HF_HUB_OFFLINE)", hint=WAYS_OUT)
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = re.search(r"-([0-9a-f]{8,})\.", path.name)  # the only way in which torch notices half a file
    download = partial(torch.hub.download_url_to_file, url, str(path), digest and digest[1], progress=False)
    try:
        hub.watched(download, path.parent)
    except Exception as error:  # torch passes on what urllib and sockets raise
        raise EnvironmentFault(f"{what} {url} did not deliver it: {hub.first_line(error)}", hint=WAYS_OUT) from error
    return path


@contextmanager
def from_cache(name: str, folder: Path) -> Iterator[None]:
    """Let timm load model `name` within the block: from the cache, where its files are in `folder`, and nowhere else.

    Raises:
        InputError: timm cannot load it, or would have to run pickled code.

    """
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True  # the client looks here at each request
    try:
        with sealed():
            yield
    except NayerError:
        raise
    except Exception as error:  # a thousand constructors and checkpoints
        if UnpicklingError in (type(error), type(error.__cause__)):
            raise InputError(
                f"the weights of '{name}' hold pickled code, which nayer never executes",
                hint="choose a model with safetensors; if you trust this one, save its weights alone and name that"
                " file",
            ) from error
        raise InputError(
            f"timm cannot load '{name}': {hub.first_line(error)}",
            hint=f"if its copy in the cache is damaged, remove {folder}",
        ) from error
    finally:
        constants.HF_HUB_OFFLINE = before


def _ask(find: Callable[[], Path], folder: Path) -> tuple[str, Path | None]:
    """Let `find` ask the hub: return what it found, or why the hub did not deliver."""
    if reason := hub.trouble():
        return reason, None
    try:
        return "", hub.watched(find, folder)
    except errors.LocalEntryNotFoundError as error:  # what the client makes of a connection that breaks
        return _not_delivered(error.__cause__ or error), None
    except ABSENT:
        raise
    except Exception as error:  # the client passes on those of its HTTP library, and has changed that library
        return _not_delivered(error), None


def _not_delivered(error: BaseException) -> str:
    return f"the hub {constants.ENDPOINT} did not deliver it: {hub.first_line(error)}"


def _first(repo: str, files: Sequence[str], revision: str | None, local_files_only: bool = False) -> Path:
    for file in files[:-1]:
        try:
            return _file(repo, file, revision, local_files_only)
        except errors.LocalEntryNotFoundError:
            if not local_files_only:  # the connection broke: the next file would not be the best
                raise
        except errors.EntryNotFoundError:
            continue
    return _file(repo, files[-1], revision, local_files_only)


def _file(repo: str, file: str, revision: str | None, local_files_only: bool) -> Path:
    found = hf_hub_download(
        repo,
        file,
        revision=revision,
        cache_dir=constants.HF_HUB_CACHE,
        endpoint=constants.ENDPOINT,
        local_files_only=local_files_only,
    )
    return Path(found)
