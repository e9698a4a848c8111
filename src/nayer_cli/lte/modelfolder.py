"""The folder of a sentence-transformers model: whether it is whole and safe, and what identifies it."""

from collections.abc import Iterator
from hashlib import file_digest, sha256
from pathlib import Path, PurePosixPath

from nayer_cli.errors import InputError
from nayer_cli.storage.text import printable, read_json

SAVE_AGAIN = "save the model with SentenceTransformer.save_pretrained"
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
TOKENIZER = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
NEEDED: dict[str, tuple[tuple[str, ...], ...]] = {
    "Transformer": (("config.json",), WEIGHTS, TOKENIZER),
    "CLIPModel": (("config.json",), WEIGHTS, TOKENIZER),
    "StaticEmbedding": (WEIGHTS, TOKENIZER),
    "Pooling": (("config.json",),),
    "Dense": (("config.json",), WEIGHTS),
}
"""For each kind of module the files that it cannot do without, with their alternatives."""
STANDARD = ("sentence_transformers.", "torch.nn.modules.")
"""What the classes are called that a model may name."""
DOTTED = ("activation_function", "tokenizer_class", "types")
"""Settings of a module whose dotted names are code."""


def check_folder(folder: Path) -> None:
    """Make sure that `folder` holds a whole sentence-transformers model that needs no code of its own.

    Raises:
        InputError: it does not.

    """
    lacking = missing_files(folder)
    if lacking:
        raise InputError(
            f"{folder} is not a complete sentence-transformers model: {lacking[0]} is missing",
            hint=SAVE_AGAIN,
        )
    for module in _modules(folder):
        for code in (module["type"], *_named_code(folder / module["path"])):
            # Anything else is Python code of the folder or of others, which older releases would run unasked.
            if not code.startswith(STANDARD):
                raise InputError(
                    f"{folder} needs code of its own ({printable(code)}), which nayer does not run",
                    hint="choose a model of standard modules, or make the pool yourself and pass it with --lte",
                )


def _named_code(part: Path) -> Iterator[str]:
    """Yield the code that the settings of a module name: a class by its dotted path, or a file of the folder."""
    for path in sorted(part.glob("*config.json")):
        settings = read_json(path)
        for key, value in settings.items() if isinstance(settings, dict) else ():
            named = value.values() if isinstance(value, dict) else [value]
            if key == "auto_map" or (key in DOTTED and any("." in str(name) for name in named)):
                yield from map(str, named)


def missing_files(folder: Path) -> list[str]:
    """Return the files, relative to `folder`, without which the model there cannot be loaded.

    Raises:
        InputError: a list of files or modules cannot be read.

    """
    if not (folder / "modules.json").is_file():
        return ["modules.json"]
    lacking: list[str] = []
    for module in _modules(folder):
        part = folder / module["path"]
        groups = NEEDED.get(module["type"].rpartition(".")[2], ())
        lacking += [f"{module['path']}/{group[0]}".lstrip("/") for group in groups if not _any_file(part, group)]
        lacking += _missing_shards(part)
    return lacking


def digest(folder: Path) -> str:
    """Return the SHA-256 of the files in `folder`, names and contents: it identifies the weights."""
    total = sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        with path.open("rb") as file:
            total.update(file_digest(file, "sha256").digest())
    return total.hexdigest()


def _any_file(part: Path, patterns: tuple[str, ...]) -> bool:
    return any(file.is_file() for pattern in patterns for file in part.glob(pattern))


def _missing_shards(part: Path) -> list[str]:
    """Return the files of weights in several files that their index names and that are not there."""
    index = part / "model.safetensors.index.json"
    if not index.is_file() and not (part / "model.safetensors").is_file():
        index = part / "pytorch_model.bin.index.json"
    if not index.is_file():
        return []
    document = read_json(index)
    try:
        shards = sorted({str(shard) for shard in document["weight_map"].values()})
        return [shard for shard in shards if not (part / _inside(shard, index)).is_file()]
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{index} is not an index of weights", hint=SAVE_AGAIN) from error


def _modules(folder: Path) -> list[dict[str, str]]:
    path = folder / "modules.json"
    document = read_json(path)
    try:
        return [{"path": _inside(str(module["path"]), path), "type": str(module["type"])} for module in document]
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} is not a list of modules", hint=SAVE_AGAIN) from error


def _inside(name: str, path: Path) -> str:
    """Return the name of a file or a folder that `path` lists.

    Raises:
        InputError: it is not inside the folder of `path`.

    """
    if PurePosixPath(name).is_absolute() or {"..", "\0"} & {*name.replace("\\", "/").split("/"), *name}:
        raise InputError(f"{path} names a path outside its folder: '{printable(name)}'", hint="choose another model")
    return name
