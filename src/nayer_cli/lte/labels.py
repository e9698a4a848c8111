"""Read class names from a file or a known data set, in index order, and make them differ before they become prompts."""

import io
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from nayer_cli import plugins
from nayer_cli.errors import InputError
from nayer_cli.images import dataset
from nayer_cli.storage.inputs import require_names
from nayer_cli.storage.text import printable, read_json, read_text, unfit, user_path

MOST = 1_000_000
"""Names in a file."""
ONE_A_LINE = "write one class name a line, in index order, as UTF-8 text"


class Label(NamedTuple):
    """A class name, and where it stands (such as `line 3`) for messages."""

    name: str
    place: str


class Labels(tuple[str, ...]):
    """Class names in index order that know where they stand."""

    places: tuple[str, ...]

    @classmethod
    def of(cls, found: Iterable[Label]) -> Self:
        """Part names and places."""
        found = list(found)
        labels = cls(label.name for label in found)
        labels.places = tuple(label.place for label in found)
        return labels


def place(names: Sequence[str], index: int) -> str:
    """Say where the name of class `index` stands: on a line, if `names` come from a text file."""
    return names.places[index] if isinstance(names, Labels) else f"class {index % len(names)}"


def read_labels(spec: str, dedupe: str = "error") -> Labels:
    """Return the class names that `spec` means, in index order: a known data set, or a file.

    * A known set is `cifar10`, `imagenet` and so on; `imagenet:first` takes the first of several synonyms. It
      goes before a file of the same name, which can be written `./cifar10`.
    * A text file has one name a line, in UTF-8, with or without a byte order mark, with any line ends. White
      space around names is dropped; empty lines, and lines that start with `#`, do not count.
    * A `.json` file holds a list of names, or an object `{"0": name, "1": name, ...}` that names every index.

    A name has 1,000 characters at most, and no control characters but tabs; a file 1,000,000 names and 16 MiB.

    Args:
        spec: the known set or the path.
        dedupe: `index` lets equal names pass, for `distinct_names` to tell them apart; `error` does not.

    Raises:
        InputError: no such set or file; not readable as text; fewer than two names; equal names.

    """
    names = Labels.of(_known_set(spec) or _read_file(spec))
    if len(names) < 2:
        raise InputError(
            f"{spec} names {'one class' if names else 'no class'}; a classifier tells at least two apart",
            hint=ONE_A_LINE,
        )
    distinct_names(names, dedupe)
    return names


def check_names(names: Sequence[str], outputs: int, teacher: str, source: str) -> None:
    """Make sure that there is a name for each of a teacher's outputs, and that each is fit to be one.

    Args:
        names: class names in index order.
        outputs: number of the teacher's outputs.
        teacher: its name, for messages.
        source: what gave the names, for messages.

    Raises:
        InputError: there are more or fewer names, or one is not a name.

    """
    if outputs < 2:
        raise InputError(
            f"the teacher '{teacher}' has one output; a classifier tells at least two classes apart",
            hint="name a teacher with one output for each class",
        )
    if len(names) != outputs:
        if len(names) < outputs:
            first = f"there is no name for class {len(names)}" + (f", after {place(names, -1)}" if names else "")
        else:
            first = f"'{printable(names[outputs])}' ({place(names, outputs)}) is the first one too many"
        raise InputError(
            f"the teacher '{teacher}' has {outputs} outputs, but {len(names)} class names were given ({source}): "
            f"{first}",
            hint="--labels must name every class, one a line, in index order",
        )
    check_fit(names, source)


def check_fit(names: Sequence[str], source: str) -> None:
    """Raise InputError if one of the names that `source` gave cannot be a name: it is shown and written down."""
    for index, name in enumerate(names):
        _check_name(name, f"{source}: {place(names, index)}", hint="give other names with --labels FILE")


def canonical(name: str) -> str:
    """Return `name` without differences that do not count: case, `_`, `-` or white space, and the composition of é."""
    return " ".join(re.split(r"[\s_-]+", unicodedata.normalize("NFC", name.casefold()))).strip()


def distinct_names(names: Sequence[str], dedupe: str = "error") -> tuple[str, ...]:
    """Return names for the prompts, all different by `canonical`.

    Args:
        names: class names in index order.
        dedupe: for names that occur more than once `error`, or `index` to append the class index to each.

    Raises:
        InputError: names are equal (also after the indices are appended).

    """
    repeated, distinct = _repeated(names), list(names)
    if repeated and dedupe == "index":
        for index in (index for group in repeated for index in group):
            distinct[index] = f"{names[index]} {index}"
        repeated = _repeated(distinct)
    if repeated:
        told = Labels.of(Label(name, place(names, index)) for index, name in enumerate(distinct))
        raise InputError(
            f"class names are equal, so their embeddings would be: {about_repeated(told)}",
            hint="rename them, or let --dedupe index append the class index to them",
        )
    return tuple(distinct)


def about_repeated(names: Sequence[str]) -> str:
    """Say which names occur more than once and where they stand, five of them at most; empty if none does."""
    groups = [
        f"'{printable(names[group[0]])}' ({', '.join(place(names, index) for index in group)})"
        for group in _repeated(names)
    ]
    return ", ".join(groups[:5]) + (f" and {len(groups) - 5} more" if len(groups) > 5 else "")


def is_one_word(one: str, other: str) -> bool:
    """Tell whether names are equal except for brackets at the end: `crane (bird)` and `crane (machine)`."""
    first, second = (canonical(re.sub(r"\s*\([^()]*\)$", "", name)) for name in (one, other))
    return first == second


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
        names = _first_synonyms(names)
    elif colon:
        raise InputError(f"'{spec}' is not a set of class names", hint=f"write {name}, or {name}:first for one synonym")
    return [Label(name, f"class {index}") for index, name in enumerate(names)]


def _first_synonyms(names: Sequence[str]) -> tuple[str, ...]:
    """Shorten names to the first synonym, except those that would be equal: a cardigan is a jacket and a dog."""
    short = [name.partition(",")[0].strip() for name in names]
    alike = {index for group in _repeated(short) for index in group}
    return tuple(names[k] if k in alike else short[k] for k in range(len(names)))


def _read_file(spec: str) -> Iterator[Label]:
    require_names(spec)
    path = user_path(spec)
    labels = _from_json(path) if path.suffix.lower() == ".json" else _from_lines(path)
    for index, label in enumerate(labels):
        if index == MOST:
            raise InputError(f"{path} has more than {MOST:,} names", hint=ONE_A_LINE)
        _check_name(label.name, f"{path}: {label.place}")
        yield label


def _from_lines(path: Path) -> Iterator[Label]:
    for number, line in enumerate(io.StringIO(read_text(path), newline=None), start=1):
        name = line.strip()
        if name and not name.startswith("#"):
            yield Label(name, f"line {number}")


def _from_json(path: Path) -> Iterator[Label]:
    for index, name in enumerate(_in_order(read_json(path), path)):
        if not isinstance(name, str):
            raise InputError(
                f"{path}: the name of class {index} is a {type(name).__name__}, not a text", hint="put it in quotes"
            )
        yield Label(name.strip(), f"class {index}")


def _in_order(document: object, path: Path) -> list[Any]:
    if isinstance(document, list):
        return document
    if not isinstance(document, dict):
        raise InputError(
            f"{path} holds neither a list of names nor an object of index and name",
            hint='for example: ["cat", "dog"], or {"0": "cat", "1": "dog"}',
        )
    indices = [str(index) for index in range(len(document))]
    missing = [index for index in indices if index not in document]
    if missing:
        raise InputError(
            f"{path} names {len(document)} classes, but none with the index {missing[0]}",
            hint="name every class from 0 on",
        )
    return [document[index] for index in indices]


def _check_name(name: str, where: str, hint: str = ONE_A_LINE) -> None:
    if fault := unfit(name):
        raise InputError(f"{where} {fault}, so it is no class name: '{printable(name)}'", hint=hint)
