"""The contract of a text encoder, and how one is named."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Protocol

from nayer_cli import plugins
from nayer_cli.errors import InputError
from nayer_cli.storage.text import user_path

if TYPE_CHECKING:
    from torch import Tensor


class Encoder(Protocol):
    """Turns texts into vectors. A plug-in in `encoders/` makes one with `open_encoder(argument, device)`.

    Opening is cheap, because a pool in the cache is found by `name` and `revision` alone; the first `encode`
    loads the weights.
    """

    @property
    def name(self) -> str:
        """The name by which the user chose it."""

    @property
    def revision(self) -> str:
        """The identity of the weights: a commit, a release, or the SHA-256 of the files."""

    def encode(self, texts: Sequence[str]) -> "Tensor":
        """Return vectors `[K, E]` float32 on the CPU of K texts, not scaled to length 1."""


def find(spec: str, device: str = "cpu") -> Encoder:
    """Open the encoder that `spec` means.

    `spec` is the name of a plug-in (`clip`, `sbert`, `onehot`), which may take an argument (`doc2vec:FILE`);
    or `py:package.module`, a plug-in from outside; or a sentence-transformers name or folder.

    Raises:
        InputError: there is no such encoder.
        EnvironmentFault: it cannot be had on this machine.

    """
    name, _, argument = spec.partition(":")
    if name == "py":
        name, argument = spec, ""
    elif name not in plugins.names("encoders"):
        name, argument = "sentence-transformers", spec
    encoder: Encoder = plugins.part("encoders", name, "open_encoder")(argument or None, device)
    return encoder


def reads_text(spec: str) -> bool:
    """Say whether an encoder looks at the texts that it is given: a control with `READS_TEXT = False` counts them."""
    name = spec.partition(":")[0]
    return name not in plugins.names("encoders") or getattr(plugins.load("encoders", name), "READS_TEXT", True)


def check(spec: str) -> None:
    """Refuse, without opening anything, what is meant to be the name of a plug-in and is not quite.

    Raises:
        InputError: it is a typing error, or a folder that is not there.

    """
    name, known = spec.partition(":")[0], plugins.names("encoders")
    if name in known or name == "py" or user_path(spec).is_dir():
        return
    if spec.startswith((".", "/", "~")):
        raise InputError(
            f"there is no folder {spec} with a text encoder",
            hint="name a folder that SentenceTransformer.save_pretrained wrote, or choose clip or sbert",
        )
    if "/" not in spec and (close := get_close_matches(name, known, n=1, cutoff=0.7)):
        raise InputError(
            f"no text encoder is called '{spec}' (did you mean '{close[0]}'?)",
            hint=f"choose one of: {', '.join(known)}; or write sentence-transformers/{spec} for a model of the hub",
        )


def refuse_argument(name: str, argument: str | None) -> None:
    """Raise InputError if something follows the name of an encoder that takes nothing."""
    if argument is not None:
        raise InputError(f"encoder '{name}' takes no argument, but '{argument}' follows it", hint=f"--encoder {name}")
