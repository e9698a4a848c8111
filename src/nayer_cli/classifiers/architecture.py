"""From a model's name to its network: timm names, hub repositories, folders, and factories in Python."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
from timm.models import PretrainedCfg
from torch import nn

from nayer_cli import plugins, trust
from nayer_cli.classifiers import names, own
from nayer_cli.classifiers.bounds import MOST_PARAMETERS, bounded, check_size
from nayer_cli.classifiers.config_json import PREPARATION, READ, read_model_json
from nayer_cli.classifiers.model_args import read_model_args
from nayer_cli.classifiers.names import CONFIG as CONFIG
from nayer_cli.classifiers.names import HUB as HUB
from nayer_cli.classifiers.pretrained import fetch, fetch_url, from_cache
from nayer_cli.classifiers.sealed import sealed
from nayer_cli.classifiers.weights import FILE_NAMES
from nayer_cli.errors import InputError, NayerError, did_you_mean
from nayer_cli.storage.text import user_path
from nayer_cli.types import ImageShape

FACTORY = trust.CODE
LOADING = ("input_size", "num_classes", "mean", "std", "first_conv", "classifier", "fixed_input_size")
"""The part of `pretrained_cfg` that timm uses to load weights."""
OF_MODEL = ("num_classes", "label_names", "label_descriptions")
"""Facts that config.json may tell of the model, before those of its `pretrained_cfg`."""


@dataclass(frozen=True)
class Architecture:
    """A recipe for a network, with the facts of its checkpoint."""

    name: str
    """For display."""
    key: str
    """The name that rebuilds it: timm's without a tag, or `py:package.module:factory`."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """timm's `pretrained_cfg`: input_size, mean, std, num_classes, label_names, first_conv, classifier …"""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """timm's keyword arguments, besides number of classes, channels and image size."""
    quantization: Mapping[str, Any] = field(default_factory=dict)
    """The `Scheme` of a network of integers; empty for a float one."""
    folder: Path | None = None
    """The folder of its weights, if it was named by a folder."""
    source: str = ""
    """The name by which timm finds pretrained weights; empty if there are none."""

    @property
    def is_factory(self) -> bool:
        """Whether a Python function makes the network, and timm cannot."""
        return self.key.startswith(FACTORY)


def find(name: str) -> Architecture:
    """Look up what `name` means.

    Args:
        name: a timm name (ours included), `hf-hub:ORG/REPO[@REVISION]`, `local-dir:DIR`, a folder with
            config.json, a run directory, `builtin:NAME`, or `py:package.module:factory`.

    Raises:
        InputError: nothing is called so.
        EnvironmentFault: it is on a hub that cannot be reached.
    """
    for family in plugins.own("models"):
        plugins.load("models", family)  # registers it with timm
    if name.startswith(FACTORY):
        key = own.canonical(name)
        _factory(key)  # reports a wrong path at once
        return Architecture(own.display(key), key)
    if name.startswith(HUB):
        return _on_hub(name)
    folder = _folder(name)
    return _described(folder / CONFIG, folder=folder) if folder else _in_timm(name)


def build(
    architecture: Architecture,
    num_classes: int | None,
    shape: ImageShape,
    *,
    pretrained: bool = False,
    most: int = MOST_PARAMETERS,
) -> nn.Module:
    """Make the network, with fresh or pretrained weights; `num_classes` and `shape` do not reach a factory.

    Raises:
        InputError: it cannot be made for this many classes or images of this shape, or has more than `most` parameters.
        EnvironmentFault: pretrained weights cannot be fetched.
    """
    if architecture.is_factory:
        return _call_factory(architecture.key)
    network: nn.Module
    arguments = timm_arguments(architecture, num_classes, shape)
    name, key = architecture.name, architecture.key
    with sealed():
        check_size(lambda: timm.create_model(key, **arguments), most, name)
    if pretrained:
        weights = _fetch_weights(architecture)
        with from_cache(architecture.name, weights.parent):
            network = timm.create_model(**_pretrained(architecture, weights), **arguments)
        return network
    try:
        with sealed(), bounded(most, name):
            network = timm.create_model(key, **arguments)
    except NayerError:
        raise
    except Exception as error:  # constructors raise whatever they meet
        size = "×".join(map(str, shape))
        raise InputError(
            f"'{architecture.name}' cannot be built for {size} images: {error}",
            hint="choose another network, or images of the size that it is made for",
        ) from error
    return network


def _pretrained(architecture: Architecture, weights: Path) -> dict[str, Any]:
    """Return the arguments that make timm load pretrained weights: its own name, or our reading of a repository.

    Of a repository timm would read config.json itself, and believe all of it.
    """
    if not architecture.source.startswith(HUB):
        return {"model_name": architecture.source, "pretrained": True}
    facts = {fact: architecture.facts[fact] for fact in LOADING if fact in architecture.facts}
    return {"model_name": architecture.key, "pretrained": True, "pretrained_cfg": {**facts, "file": str(weights)}}


def timm_arguments(architecture: Architecture, num_classes: int | None, shape: ImageShape) -> dict[str, Any]:
    """Return the keyword arguments with which timm builds the network; none for a factory."""
    if architecture.is_factory:
        return {}
    arguments = {**architecture.arguments, "num_classes": num_classes, "in_chans": shape.channels}
    if architecture.facts.get("fixed_input_size"):
        square = shape.height == shape.width
        arguments["img_size"] = shape.height if square else [shape.height, shape.width]
    return arguments


def _fetch_weights(architecture: Architecture) -> Path:
    """Bring pretrained weights to where timm looks for them first."""
    facts, source = architecture.facts, architecture.source
    if source.startswith(HUB):
        return fetch(architecture.name, source.removeprefix(HUB), FILE_NAMES)
    repo = facts.get("hf_hub_id")
    if not repo:
        return fetch_url(architecture.name, facts["url"])
    named = facts.get("hf_hub_filename")
    return fetch(architecture.name, repo, [named] if named else FILE_NAMES)


def _folder(name: str) -> Path | None:
    """Return the folder with config.json that `name` means, or None if it does not mean a folder."""
    folder = names.named_folder(name)
    if folder is None and name and not timm.is_model(name) and user_path(name).is_dir():
        folder = user_path(name)
    return names.described(folder, name) if folder else None


def _on_hub(name: str) -> Architecture:
    return _described(fetch(name, name.removeprefix(HUB), [CONFIG]), source=name)


def _described(path: Path, *, folder: Path | None = None, source: str = "") -> Architecture:
    """Read config.json as timm and `save_classifier` write it."""
    document = read_model_json(path)
    said = document.get("pretrained_cfg", document)
    key = document.get("architecture") or said.get("architecture")
    if not key:
        raise InputError(
            f"{path} does not describe a timm model: it names no architecture",
            hint='its config.json must have an "architecture", a name that nayer info --models lists',
        )
    facts = {fact: said.get(fact) for fact in READ} | {fact: document.get(fact, said.get(fact)) for fact in OF_MODEL}
    known = {fact: value for fact, value in facts.items() if value is not None}
    quantization = document.get("quantization", {})
    if key.startswith(FACTORY):
        trust.require_word(key, path)
        return Architecture(own.display(key), key, known, folder=folder, quantization=quantization)
    timms = _in_timm(key)
    arguments = read_model_args(document.get("model_args") or {}, path)
    # Preparation belongs to these weights. Where the file is silent, timm's default for any network holds.
    defaults = {fact: getattr(PretrainedCfg(), fact) for fact in PREPARATION}
    facts = {**timms.facts, **defaults, **known}
    return Architecture(timms.name, timms.key, facts, arguments, quantization, folder, source)


def _in_timm(name: str) -> Architecture:
    key = name.partition(".")[0]
    if not timm.is_model(key) and key in plugins.installed("models"):
        _register(key)
    if not timm.is_model(key):
        raise names.no_model(name)
    try:
        facts = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        known = timm.list_pretrained(f"{key}.*")
        hint = f"choose one of: {', '.join(known)}" if known else "it has no pretrained weights at all"
        raise InputError(f"timm has no weights '{name}'{did_you_mean(name, known)}", hint=hint) from error
    if facts is None and key in plugins.installed("models"):
        return Architecture(name, key)
    if facts is None:
        return _in_timm(_renamed(name))
    return Architecture(name, key, vars(facts), source=name if facts.has_weights else "")


def _register(key: str) -> None:
    """Import the module of an installed package that registers network `key` with timm."""
    module = plugins.load("models", key).__name__
    if not timm.is_model(key):
        raise InputError(
            f"{module} is declared to provide the network '{key}', but does not register it with timm",
            hint="report this to the package's authors: it must call timm.models.register_model",
        )


def _renamed(name: str) -> str:
    """Return the present name of a model that timm has renamed, which only a network that it builds shows."""
    with sealed():
        facts: Any = timm.create_model(name).pretrained_cfg
    return f"{facts['architecture']}.{facts['tag']}"


def _call_factory(key: str) -> nn.Module:
    """Make the network of `py:package.module:factory`.

    Raises:
        InputError: the factory cannot be imported, fails, or does not return a network.
    """
    factory = _factory(key)
    try:
        network = factory()
    except Exception as error:  # code of the user
        raise InputError(
            f"{key} failed: {type(error).__name__}: {error}",
            hint="mend that function: Python alone must be able to call it without arguments",
        ) from error
    if not isinstance(network, nn.Module):
        raise InputError(
            f"{key} returned a {type(network).__name__}, not a torch.nn.Module", hint="let it return the network itself"
        )
    return network


def _factory(key: str) -> Callable[[], Any]:
    """Import a class or a function by `plugins.import_outside`."""
    module_name, _, attribute = own.canonical(key).removeprefix(FACTORY).partition(":")
    module = plugins.import_outside(module_name)
    factory: Callable[[], Any] | None = getattr(module, attribute, None)
    if not callable(factory):
        raise InputError(
            f"{module_name} has no function '{attribute}'{did_you_mean(attribute, dir(module))}",
            hint=f"name one that it has: {FACTORY}{module_name}:FUNCTION",
        )
    return factory
