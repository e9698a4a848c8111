"""The recipe of `nayer embed`: class names become an LTE pool, found in the cache or built."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from nayer_cli.config import EmbedConfig, LteConfig, build
from nayer_cli.errors import ConfigError, EnvironmentFault, InputError
from nayer_cli.lte import encoder as encoders
from nayer_cli.lte.labels import distinct_names, read_labels
from nayer_cli.lte.pool import Pool, build_pool, cache_folder, cache_key, load_pool, save_pool
from nayer_cli.lte.prompts import template
from nayer_cli.machine.device import resolve_device


@dataclass(frozen=True)
class EmbedResult:
    """The pool that `embed` made or found."""

    path: Path
    classes: int
    """Rows K of the pool."""
    dim: int
    """Width E of an embedding."""
    encoder: str
    revision: str
    """The version of the encoder's weights."""
    prompt: str | None
    """The template; None of an encoder that reads no text."""
    cached: bool
    """Whether the pool already existed, so that no encoder was loaded."""
    sha256: str
    """Size of the file at `path`."""


def embed(settings: Mapping[str, object]) -> EmbedResult:
    """Make an LTE pool, or find it in the cache.

    Args:
        settings: keys of `EmbedConfig`, such as `{"labels": "cifar10", "encoder": "sbert"}`.

    Raises:
        ConfigError: a setting is wrong.
        InputError: class names, encoder or pool cannot be used.
        EnvironmentFault: this machine cannot provide the encoder, the device or the cache.

    """
    config = build(EmbedConfig, dict(settings))
    _check_replaceable(config.out)
    names = read_labels(config.labels, config.dedupe) if config.labels else None
    pool, path, cached = find_or_build_pool(config, names, str(resolve_device(config.device)))
    if config.out:
        path = Path(config.out).expanduser()
        save_pool(path, pool)
    classes, dim = pool.embeddings.shape
    digest = sha256(path.read_bytes()).hexdigest()
    prompt = pool.prompt if encoders.reads_text(pool.encoder) else None
    return EmbedResult(path, classes, dim, pool.encoder, pool.revision, prompt, cached, digest)


def _check_replaceable(out: str | None) -> None:
    """Make sure that a file which is there already is a pool: anything else is not ours to replace.

    Raises:
        InputError: it is something else, a mistyped list of labels for example.

    """
    path = Path(out).expanduser() if out else None
    if path is None or not path.exists():
        return
    try:
        load_pool(path)
    except InputError as error:
        raise InputError(
            f"{path} already exists and is not an LTE pool, so nayer leaves it alone", hint="choose another --out"
        ) from error


def find_or_build_pool(lte: LteConfig, names: Sequence[str] | None, device: str) -> tuple[Pool, Path, bool]:
    """Return the pool for classes `names`, its file, and whether it was there already.

    Args:
        lte: settings; `lte.file` is a ready-made pool, which is checked against `names`.
        names: class names in index order; None only with `lte.file`.
        device: where an encoder would run.

    Raises:
        ConfigError: there are neither names nor a file, or the prompt is wrong.
        InputError: names are equal, or the file does not fit them.
        EnvironmentFault: the encoder cannot be had, or the cache cannot be written.

    """
    if lte.file:
        path = Path(lte.file).expanduser()
        return load_pool(path, names), path, True
    if names is None:
        raise ConfigError("no class names are given", hint="--labels FILE, or a known set such as --labels cifar10")
    encoder = encoders.find(lte.encoder, device)
    key = cache_key(distinct_names(names, lte.dedupe), encoder.name, encoder.revision, template(lte.prompt))
    path = cache_folder(lte.cache_dir) / f"{key}.safetensors"
    found = _from_cache(path, names)
    if found:
        return found, path, True
    pool = build_pool(encoder, names, lte.prompt, lte.dedupe)
    try:
        save_pool(path, pool)
    except InputError as error:
        raise EnvironmentFault(str(error), hint="choose another folder with --cache-dir") from error
    return pool, path, False


def _from_cache(path: Path, names: Sequence[str]) -> Pool | None:
    try:
        return load_pool(path, names) if path.exists() else None
    except InputError:  # a damaged entry: only we write here, so it is ours to replace
        return None
