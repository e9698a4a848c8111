"""The LTE pool: a text embedding for each class `[K, E]`, in a safetensors file that says how it was made."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nayer_cli.classifiers.weights import FLOATS
from nayer_cli.errors import InputError
from nayer_cli.lte.encoder import Encoder
from nayer_cli.lte.labels import canonical, distinct_names, is_one_word, place
from nayer_cli.lte.prompts import render, template
from nayer_cli.storage.caches import cache_folder as cache_folder
from nayer_cli.storage.inputs import require_pool
from nayer_cli.storage.safetensors_header import check_header
from nayer_cli.storage.tensors import save_tensors
from nayer_cli.storage.text import parse_json, printable, unfit

FORMAT = "nayer.lte/1"
FAMILY = "nayer.lte/"
EMBEDDINGS = "embeddings"
ORIGIN = ("encoder", "revision", "prompt")
SAME = 1e-5
"""Rows nearer than this fraction of their length are the same: encoders are exact to about 1e-7."""
REBUILD = "make the pool again with nayer embed"
CONVERT = "a table from elsewhere must be a safetensors file: save_file({'embeddings': table}, FILE), [classes, width]"
LINES = 8
"""Random lines on which rows are compared before they are in full."""


@dataclass(frozen=True)
class Pool:
    """Label-text embeddings and where they come from."""

    embeddings: Tensor
    """`[K, E]` float32, row k for class k, as the encoder gave them."""
    names: tuple[str, ...]
    encoder: str = "unknown"
    revision: str = "unknown"
    prompt: str = "unknown"
    same: tuple[tuple[int, int], ...] = ()
    """Classes with the same name and the same row, because the table's maker did not tell them apart."""


def build_pool(encoder: Encoder, names: Sequence[str], prompt: str, dedupe: str = "error") -> Pool:
    """Encode each class name inside `prompt`.

    Args:
        encoder: the text encoder.
        names: class names in index order; the pool keeps them as they are.
        prompt: a template, or the name of one.
        dedupe: what to do with equal names (`distinct_names`).

    Raises:
        InputError: names are equal, or the encoder cannot tell their prompts apart.

    """
    embeddings = encoder.encode(render(prompt, distinct_names(names, dedupe)))
    if embeddings.ndim != 2 or len(embeddings) != len(names):
        raise InputError(
            f"encoder '{encoder.name}' made {list(embeddings.shape)} of {len(names)} names, not one row for each",
            hint="let it return one row for each text: [texts, width]",
        )
    check_rows(embeddings, names, f"encoder '{encoder.name}' with prompt '{template(prompt)}'")
    return Pool(embeddings, tuple(names), encoder.name, encoder.revision, template(prompt))


def cache_key(names: Sequence[str], encoder: str, revision: str, prompt: str) -> str:
    """Return the SHA-256 of everything that the content of a pool depends on."""
    return _digest([FORMAT, encoder, revision, prompt, list(names)])


def save_pool(path: Path, pool: Pool) -> None:
    """Write `pool` to `path` atomically; equal pools give equal bytes.

    Raises:
        InputError: the file cannot be written.

    """
    metadata = {
        "format": FORMAT,
        "encoder": pool.encoder,
        "revision": pool.revision,
        "prompt": pool.prompt,
        "names": json.dumps(pool.names, ensure_ascii=False),
        "names_sha256": _digest(list(pool.names)),
        "dtype": "float32",
    }
    save_tensors(path, {EMBEDDINGS: pool.embeddings.float()}, metadata)


def load_pool(path: Path, names: Sequence[str] | None = None) -> Pool:
    """Read a pool, and make sure that it fits.

    A safetensors file from elsewhere is taken too, if its only tensor is `embeddings` `[K, E]` in floating
    point. It does not say what its rows stand for, so `names` is believed, or classes go by their index.

    Args:
        path: the file.
        names: the classes that it must hold, in order; `canonical` forms are compared.

    Raises:
        InputError: not a pool, damaged, of another version or other classes; rows are equal or not finite.

    """
    embeddings, metadata = _read(path)
    rows = len(embeddings)
    found = _own_names(path, metadata) if metadata else tuple(names or map(str, range(rows)))
    for claimed in (found, names or found):
        if len(claimed) != rows:
            raise InputError(f"{path} has {rows} embeddings, but there are {len(claimed)} classes", hint=REBUILD)
    _compare_names(path, found, names or found)
    same = check_rows(embeddings, names or found, str(path))
    return Pool(embeddings, found, **{key: metadata[key] for key in ORIGIN if metadata}, same=same)


def check_rows(embeddings: Tensor, names: Sequence[str], source: str) -> tuple[tuple[int, int], ...]:
    """Make sure that every row of `embeddings` `[K, E]` is finite, and that classes of different names differ.

    Returns:
        Pairs of classes of one name whose rows are the same.

    Raises:
        InputError: with the classes whose rows are at fault.

    """
    broken = (~embeddings.isfinite().all(dim=1)).nonzero().flatten().tolist()
    if broken:
        raise InputError(f"{source}: the embedding of {_who(names, broken[0])} is not finite", hint=REBUILD)
    pairs = tuple(_same_rows(embeddings))
    for i, j in pairs:
        if not is_one_word(names[i], names[j]):
            raise InputError(
                f"{source}: {_who(names, i)} and {_who(names, j)} have equal embeddings",
                hint="make the pool with nayer embed --prompt '{name} {index}'",
            )
    return pairs


def _who(names: Sequence[str], index: int) -> str:
    return f"'{printable(names[index])}' ({place(names, index)})"


def _same_rows(embeddings: Tensor) -> Iterator[tuple[int, int]]:
    """Yield pairs of rows that are the same.

    Rows that are near are so along every line. So those near along one are looked for in its order, and few of them
    are near along the others, too: all pairs of 21,000 rows would take half a minute.
    """
    lines = torch.randn(embeddings.shape[1], LINES, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    lines /= lines.norm(dim=0)
    chunks = map(Tensor.double, embeddings.split(1024))  # in float32 equal rows differ by chance
    sketch = torch.cat([torch.cat([chunk @ lines, chunk.norm(dim=1, keepdim=True)], dim=1) for chunk in chunks])
    along, near = sketch[:, :LINES], SAME * sketch[:, LINES]
    order = along[:, 0].argsort()
    for distance in range(1, len(order)):
        first, second = order[:-distance], order[distance:]
        apart, enough = (along[first] - along[second]).abs(), near[first].maximum(near[second])
        for pair in (apart <= enough[:, None]).all(dim=1).nonzero().flatten().tolist():
            i, j = sorted((int(first[pair]), int(second[pair])))
            if (embeddings[i].double() - embeddings[j].double()).norm() <= enough[pair]:
                yield i, j
        if not (apart[:, 0] <= enough).any():
            break  # rows further apart in this order are further apart


def _read(path: Path) -> tuple[Tensor, Mapping[str, str]]:
    """Return the embeddings, and the header if it is one of ours."""
    require_pool(path)
    try:
        check_header(path)
        with safe_open(path, framework="pt") as file:
            metadata, names = file.metadata() or {}, list(file.keys())
            _check_content(path, metadata.get("format", "pt"), names)
            embeddings: Tensor = file.get_tensor(EMBEDDINGS)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is not a valid safetensors file: {error}", hint=f"{REBUILD}; {CONVERT}") from error
    if embeddings.ndim != 2 or embeddings.dtype not in FLOATS or not embeddings.numel():
        shape = "×".join(map(str, embeddings.shape))
        raise InputError(
            f"{path}: embeddings must be [classes, width] in floating point of 16 bits or more, "
            f"not {shape} {embeddings.dtype}",
            hint=f"{REBUILD}; {CONVERT}",
        )
    return embeddings.float(), metadata if metadata.get("format") == FORMAT else {}


def _check_content(path: Path, found: str, names: Sequence[str]) -> None:
    """Make sure that a file of format `found` (`pt` is what torch's own tools write) holds a pool and no more."""
    if found.startswith(FAMILY) and found != FORMAT:
        raise InputError(f"{path} has format {printable(found)}, but this nayer reads {FORMAT}", hint=REBUILD)
    if found not in (FORMAT, "pt") or names != [EMBEDDINGS]:
        held = ", ".join(map(printable, sorted(names)[:5])) or "nothing"
        raise InputError(f"{path} is not an LTE pool: it holds {printable(found)}, {held}", hint=REBUILD)


def _own_names(path: Path, metadata: Mapping[str, str]) -> tuple[str, ...]:
    try:
        names = parse_json(metadata["names"])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("they are not a list of texts")
        sound = metadata["names_sha256"] == _digest(names) and metadata.keys() >= set(ORIGIN)
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: the header lacks class names: {printable(repr(error))}", hint=REBUILD) from error
    if not sound:
        raise InputError(f"{path}: the header has been changed: names_sha256 does not fit the names", hint=REBUILD)
    for index, name in enumerate(names):
        if fault := unfit(name):
            raise InputError(f"{path}: the name of class {index} {fault}: '{printable(name)}'", hint=REBUILD)
    return tuple(names)


def _compare_names(path: Path, found: Sequence[str], wanted: Sequence[str]) -> None:
    for index, (one, other) in enumerate(zip(found, wanted, strict=True)):
        if canonical(one) != canonical(other):
            same_set = set(map(canonical, found)) == set(map(canonical, wanted))
            raise InputError(
                f"{path} is for {'a different order of the classes' if same_set else 'other classes'}: "
                f"class {index} is '{printable(one)}' there, and '{printable(other)}' here",
                hint=REBUILD,
            )


def _digest(document: object) -> str:
    return sha256(json.dumps(document, ensure_ascii=False).encode()).hexdigest()
