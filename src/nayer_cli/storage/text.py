"""Text from strangers' files: bounded, decoded, and fit for a message of one line."""

import json
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nayer_cli.errors import InputError

LONGEST_FILE = 16 * 2**20
"""Bytes above which a file is neither a list of names nor a description of a model."""
LONGEST_NAME = 1000
"""Characters above which a line is not a class name."""
SHOWN = 120
COMMANDS = re.compile(r"[\0-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Characters that a terminal obeys instead of showing them, but for the tab and the end of a line; and what is none."""
INVISIBLE = {"Zs", "Zl", "Zp", "Cf"}
"""Unicode's categories of spaces, and of marks that only format the text around them."""


def user_path(spec: str | Path) -> Path:
    """Return the path that `spec` is, with `~` as the home folder where there is one.

    Raises:
        InputError: the system cannot look there, for example because `spec` is too long.

    """
    path = Path(spec)
    try:
        path = path.expanduser()
        path.exists()
    except RuntimeError:  # the home of a user who does not exist
        return path
    except OSError as error:
        raise InputError(
            f"cannot look for '{printable(str(spec))}': {error.strerror}", hint="check that it is the path you mean"
        ) from error
    return path


def read_text(path: Path, what: str = "", longest: int = LONGEST_FILE) -> str:
    """Read a UTF-8 file, without its byte order mark.

    Args:
        path: the file.
        what: it is, for messages.
        longest: bytes that it may have.

    Raises:
        InputError: the file cannot be read, is longer, or is not UTF-8 (with the byte that is not).

    """
    try:
        with path.open("rb") as file:
            data = file.read(longest + 1)
    except (OSError, ValueError) as error:  # a path with a NUL is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"cannot read {what}{' ' if what else ''}{path}: {reason}", hint="check its name, and who may read it"
        ) from error
    if len(data) > longest:
        raise InputError(
            f"{path} is too long: {what or 'such a file'} may have at most {longest:,} bytes",
            hint="check that it is the file you mean",
        )
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = 1 + len(re.findall(rb"\r\n|\r|\n", data[: error.start]))
        raise InputError(
            f"{path} is not UTF-8 text: byte {error.start}, on line {line}, is 0x{data[error.start]:02x}",
            hint="convert it (iconv -f ENCODING -t UTF-8)",
        ) from error


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: as `read_text` does, or the text is not JSON.

    """
    text = read_text(path)
    try:
        return parse_json(text)
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}", hint="correct it there, or save it again") from error


def parse_json(text: str) -> Any:
    """Return the document that `text` is.

    Raises:
        ValueError: it is none, an object has one key twice, or it is nested too deeply.

    """
    try:
        return json.loads(text, object_pairs_hook=_distinct)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _distinct(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for key, value in pairs:
        if key in document:
            raise ValueError(f"the key '{printable(key)}' occurs twice")
        document[key] = value
    return document


def unfit(name: str) -> str:
    """Say why `name` cannot be the name of a class, which is shown and written down; empty if it can."""
    categories = () if name.isprintable() else set(map(unicodedata.category, name.replace("\t", " ")))
    if "Cs" in categories:
        return "is not valid Unicode"
    if "Cc" in categories:
        return "has control characters"
    if len(name) > LONGEST_NAME:
        return f"has {len(name):,} characters, and a name at most {LONGEST_NAME:,}"
    return "is empty" if not name.strip() or (categories and categories <= INVISIBLE) else ""


def printable(text: str) -> str:
    """Return `text` fit for a message of one line: not too long, and without what cannot be printed."""
    return escaped(text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…")


def harmless(text: str) -> str:
    """Return `text` without commands to a terminal, which are written as Python would write them."""
    return COMMANDS.sub(lambda found: ascii(found[0])[1:-1], text)


def escaped(text: str) -> str:
    """Return `text` with what cannot be printed, or cannot be written as UTF-8, as Python would write it."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
