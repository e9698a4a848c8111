"""Any sentence-transformers model, by its name on the hub or by its folder."""

from nayer_cli import plugins
from nayer_cli.errors import EnvironmentFault, InputError, did_you_mean
from nayer_cli.lte import download
from nayer_cli.lte.encoder import Encoder
from nayer_cli.lte.modelfolder import digest
from nayer_cli.lte.sentence import SentenceEncoder
from nayer_cli.storage.text import user_path


def open_encoder(argument: str | None, device: str) -> Encoder:
    """Open the model in folder `argument`, or called so; one without `/` is of sentence-transformers' own.

    Raises:
        InputError: no name; or a folder that is not there, or holds no model.
        EnvironmentFault: the model is not in the cache and cannot be downloaded.

    """
    if argument is None:
        raise InputError("no sentence-transformers model is named", hint="--encoder ORG/NAME, or --encoder FOLDER")
    folder = user_path(argument)
    if folder.is_dir():
        return SentenceEncoder(argument, f"sha256:{digest(folder)}", folder, device)
    if argument.startswith((".", "/", "~")):
        raise InputError(
            f"there is no folder {argument} with a text encoder",
            hint="name a folder that SentenceTransformer.save_pretrained wrote, or a model of the hub: ORG/NAME",
        )
    repo = argument if "/" in argument else f"sentence-transformers/{argument}"
    try:
        folder = download.snapshot(repo, argument)
    except EnvironmentFault as error:
        known = plugins.names("encoders")
        raise EnvironmentFault(f"{error}{did_you_mean(argument, known)}", hint=error.hint) from error
    return SentenceEncoder(argument, f"{repo}@{folder.name}", folder, device)
