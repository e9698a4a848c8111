"""Class names: from a file or a known data set, in index order, and told apart before they become prompts."""

import io
import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nayer_cli import dataset, plugins
from nayer_cli.errors import InputError, did_you_mean

ONE_A_LINE = "write one class name a line, in index order, as UTF-8 text"


class Label(NamedTuple):
    """A class name, and where it stands (such as `line 3`) for messages."""

    name: str
    place: str


def read_labels(spec: str, dedupe: str = "error") -> tuple[str, ...]:
    """Return the class names that `spec` means, in index order: a known data set, or a file.

    * A known set is `cifar10`, `imagenet` and so on; `imagenet:first` takes the first of several synonyms. It
      goes before a file of the same name, which can be written `./cifar10`.
    * A text file has one name a line, in UTF-8, with or without a byte order mark, with any line ends. White
      space around names is dropped; empty lines, and lines that start with `#`, do not count.
    * A `.json` file holds a list of names, or an object `{"0": name, "1": name, ...}` that names every index.

    Args:
        spec: the known set or the path.
        dedupe: `index` lets equal names pass, for `distinct_names` to tell them apart; `error` does not.

    Raises:
        InputError: no such set or file; not readable as text; fewer than two names; equal names.

    """
    found = _known_set(spec) or list(_read_file(spec))
    names = tuple(label.name for label in found)
    if len(names) < 2:
        raise InputError(
            f"{spec} names {'one class' if names else 'no class'}; a classifier tells at least two apart",
            hint=ONE_A_LINE,
        )
    distinct_names(names, dedupe, [label.place for label in found])
    return names


def canonical(name: str) -> str:
    """Return `name` without what tells no classes apart: case, and which of `_`, `-`, white space divides."""
    return " ".join(re.split(r"[\s_-]+", name.casefold())).strip()


def distinct_names(names: Sequence[str], dedupe: str = "error", places: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return names for the prompts, no two of which are equal by `canonical`.

    Args:
        names: class names in index order.
        dedupe: for names that occur more than once `error`, or `index` to append the class index to each.
        places: where each name stands, for the message.

    Raises:
        InputError: names are equal (also after the indices are appended).

    """
    repeated = _repeated(names)
    if repeated and dedupe == "index":
        indexed = {index for group in repeated for index in group}
        names = [f"{name} {index}" if index in indexed else name for index, name in enumerate(names)]
        repeated = _repeated(names)
    if repeated:
        places = places or [f"class {index}" for index in range(len(names))]
        groups = [f"'{names[group[0]]}' ({', '.join(places[index] for index in group)})" for group in repeated]
        more = f" and {len(groups) - 5} more" if len(groups) > 5 else ""
        raise InputError(
            f"class names are equal, so their embeddings would be: {', '.join(groups[:5])}{more}",
            hint="rename them, or let --dedupe index append the class index to them",
        )
    return tuple(names)


def _repeated(names: Sequence[str]) -> list[list[int]]:
    groups = defaultdict(list)
    for index, name in enumerate(names):
        groups[canonical(name)].append(index)
    return [group for group in groups.values() if len(group) > 1]


def _known_set(spec: str) -> list[Label] | None:
    name, colon, part = spec.partition(":")
    if name not in plugins.names("datasets"):
        return None
    names = dataset.find(name).class_names
    if part == "first":
        names = tuple(name.split(",")[0].strip() for name in names)
    elif colon:
        raise InputError(f"'{spec}' is not a set of class names", hint=f"write {name}, or {name}:first for one synonym")
    return [Label(name, f"class {index}") for index, name in enumerate(names)]


def _read_file(spec: str) -> Iterator[Label]:
    path = Path(spec).expanduser()
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        known = plugins.names("datasets")
        raise InputError(
            f"'{spec}' is neither a file nor a known set of class names{did_you_mean(spec, known)}",
            hint=f"give a text file with one name a line, or one of: {', '.join(known)}",
        ) from error
    except OSError as error:
        raise InputError(f"cannot read class names from {path}: {error.strerror or error}") from error
    text = _decode(data, path)
    yield from _from_json(text, path) if path.suffix.lower() == ".json" else _from_lines(text, path)


def _decode(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text: byte {error.start} is 0x{data[error.start]:02x}",
            hint=f"convert it (iconv -t UTF-8); {ONE_A_LINE}",
        ) from error


def _from_lines(text: str, path: Path) -> Iterator[Label]:
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        name = line.strip()
        if name and not name.startswith("#"):
            yield _checked(name, f"line {number}", path)


def _from_json(text: str, path: Path) -> Iterator[Label]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
    for index, name in enumerate(_in_order(document, path)):
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"{path}: the name of class {index} is {name!r}, not a text")
        yield _checked(name.strip(), f"class {index}", path)


def _in_order(document: Any, path: Path) -> list[Any]:
    if isinstance(document, list):
        return document
    if not isinstance(document, dict):
        raise InputError(f"{path} holds neither a list of names nor an object of index and name")
    indices = [str(index) for index in range(len(document))]
    missing = [index for index in indices if index not in document]
    if missing:
        raise InputError(f"{path} names {len(document)} classes, but none with the index {missing[0]}")
    return [document[index] for index in indices]


def _checked(name: str, place: str, path: Path) -> Label:
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name.replace("\t", " ")):
        raise InputError(f"{path} is not a text file: {place} has control characters: {name[:40]!r}", hint=ONE_A_LINE)
    return Label(name, place)
