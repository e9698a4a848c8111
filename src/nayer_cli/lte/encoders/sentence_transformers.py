"""Any sentence-transformers model, by its name on the hub or by its folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nayer_cli import plugins
from nayer_cli.errors import EnvironmentFault, InputError, did_you_mean
from nayer_cli.lte import download
from nayer_cli.lte.encoder import Encoder
from nayer_cli.lte.modelfolder import check_folder, digest
from nayer_cli.lte.sentence import SentenceEncoder
from nayer_cli.storage.text import user_path


def check(argument: str | None, is_used: bool = True) -> None:
    """Make sure that the model in folder `argument`, or called so, can be had if it is used."""
    folder = _folder(argument)
    if folder:
        check_folder(folder)
    elif is_used and argument:
        with _suggesting(argument):
            download.require(_repo(argument), argument)


def open_encoder(argument: str | None, device: str) -> Encoder:
    """Open the model in folder `argument`, or called so; one without `/` is of sentence-transformers' own.

    Raises:
        InputError: no name; or a folder that is not there, or holds no model.
        EnvironmentFault: the model is not in the cache and cannot be downloaded.

    """
    folder = _folder(argument)
    assert argument is not None
    if folder:
        return SentenceEncoder(argument, f"sha256:{digest(folder)}", folder, device)
    repo = _repo(argument)
    with _suggesting(argument):
        folder = download.snapshot(repo, argument)
    return SentenceEncoder(argument, f"{repo}@{folder.name}", folder, device)


def _folder(argument: str | None) -> Path | None:
    """Return the folder that is named; None for a name on the hub."""
    if argument is None:
        raise InputError("no sentence-transformers model is named", hint="--encoder ORG/NAME, or --encoder FOLDER")
    folder = user_path(argument)
    if folder.is_dir():
        return folder
    if argument.startswith((".", "/", "~")):
        raise InputError(
            f"there is no folder {argument} with a text encoder",
            hint="name a folder that SentenceTransformer.save_pretrained wrote, or a model of the hub: ORG/NAME",
        )
    return None


def _repo(argument: str) -> str:
    return argument if "/" in argument else f"sentence-transformers/{argument}"


@contextmanager
def _suggesting(argument: str) -> Iterator[None]:
    """Say which plug-in may have been meant, where a model cannot be had."""
    try:
        yield
    except EnvironmentFault as error:
        known = plugins.names("encoders")
        raise EnvironmentFault(f"{error}{did_you_mean(argument, known)}", hint=error.hint) from error
