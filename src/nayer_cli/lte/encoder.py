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
    name, argument = _read(spec)
    encoder: Encoder = plugins.part("encoders", name, "open_encoder")(argument, device)
    return encoder


def _read(spec: str) -> tuple[str, str | None]:
    """Return the plug-in that `spec` means, and its argument."""
    name, _, argument = spec.partition(":")
    if name == "py":
        return spec, None
    if name not in plugins.names("encoders"):
        return "sentence-transformers", spec
    return name, argument or None


def on_hub(spec: str) -> str:
    """Return the repository of the hub, `ORG/NAME`, that `spec` means; empty if it means code or a folder."""
    name, argument = _read(spec)
    if name != "sentence-transformers" or not argument or user_path(argument).is_dir():
        return ""
    return argument if "/" in argument else f"sentence-transformers/{argument}"


def reads_text(spec: str) -> bool:
    """Say whether an encoder looks at the texts that it is given: a control with `READS_TEXT = False` counts them."""
    name = spec.partition(":")[0]
    return name not in plugins.names("encoders") or getattr(plugins.load("encoders", name), "READS_TEXT", True)


def check(spec: str, *, is_used: bool = True) -> None:
    """Refuse, without torch and without opening anything, what names no encoder.

    One of ours is asked by its `check(argument, is_used)`. It must also be within reach if it `is_used`.

    Raises:
        InputError: it is a typing error, or a folder, a file or a module that is not there.
        EnvironmentFault: it is not in the cache of the hub, which cannot be reached.

    """
    name, argument = _read(spec)
    if name in plugins.own("encoders"):
        _refuse_slip(spec)
        plugins.part("encoders", name, "check")(argument, is_used)
    else:
        plugins.check("encoders", name)


def _refuse_slip(spec: str) -> None:
    """Refuse what is meant to be the name of a plug-in, and is not quite."""
    name, known = spec.partition(":")[0], plugins.names("encoders")
    if name in known or "/" in spec or user_path(spec).is_dir():
        return
    if close := get_close_matches(name, known, n=1, cutoff=0.7):
        raise InputError(
            f"no text encoder is called '{spec}' (did you mean '{close[0]}'?)",
            hint=f"choose one of: {', '.join(known)}; or write sentence-transformers/{spec} for a model of the hub",
        )


def refuse_argument(name: str, argument: str | None) -> None:
    """Raise InputError if something follows the name of an encoder that takes nothing."""
    if argument is not None:
        raise InputError(f"encoder '{name}' takes no argument, but '{argument}' follows it", hint=f"--encoder {name}")
