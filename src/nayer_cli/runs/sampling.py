"""Check the settings of `nayer sample`, before torch is imported and again in the recipe."""

from pathlib import Path

from nayer_cli import plugin_settings, plugins
from nayer_cli.config import SampleConfig
from nayer_cli.errors import ConfigError, InputError
from nayer_cli.model_settings import ModelConfig

AUTO, USUAL, WITHOUT_STATISTICS = "auto", "zeroq", "deepinv"
"""The method that chooses by the network, and what it chooses: the second for networks without BatchNorm."""
ARRAYS = ("npz", "npy")
PNG = "png"


def check(config: SampleConfig) -> None:
    """Refuse what contradicts itself, or cannot be written.

    Raises:
        InputError: no source is named, or two; `out` is missing or taken; a setting is about something else.

    """
    _check_source(config)
    _check_form(config)
    _check_place(config)
    if config.model.name:
        check_method(str(config.method["name"]))


def format_of(config: SampleConfig) -> str:
    """Return `npz`, `npy` or `png`: as asked for, or as the file is called, or what suits the source."""
    suffix = Path(config.out or "").suffix.removeprefix(".")
    return config.format or (suffix if suffix in ARRAYS else "npz" if config.model.name else PNG)


def values_of(config: SampleConfig) -> str:
    """Return `pixels`, `unit` or `normalized`."""
    return config.values or ("pixels" if format_of(config) == PNG else "normalized")


def is_file(config: SampleConfig) -> bool:
    """Say whether `out` is the name of an array's file, and not of a folder."""
    return Path(config.out or "").suffix.removeprefix(".") in ARRAYS


def has_manifest(config: SampleConfig) -> bool:
    """Say whether a manifest describes the images; PNG files of a run are for people unless a format is named."""
    return bool(config.model.name or config.format or config.values or is_file(config)) and not config.grid


def asks_for_classes(config: SampleConfig) -> bool:
    """Say whether the classes of the images matter."""
    return bool(config.classes or config.per_class)


def check_method(name: str) -> None:
    """Make sure that a method makes images for a classifier alone; one from outside is asked when it is made.

    Raises:
        InputError: there is no such method, or it needs more.

    """
    if name == AUTO:
        return
    plugins.check("methods", name, extra=(AUTO,))
    able = [own for own in plugins.own("methods") if not _needs_student(own)]
    if name in plugins.own("methods") and name not in able:
        raise ConfigError(
            f"the method {name} makes images for a student, and nayer sample --model has none",
            hint=f"choose one of: {', '.join((AUTO, *able))}",
        )


def _needs_student(name: str) -> bool:
    return bool(plugin_settings.literals("methods", name, "Method").get("needs_student", True))


def _check_source(config: SampleConfig) -> None:
    if bool(config.run) == bool(config.model.name):
        fault = "both RUN and --model are given" if config.run else "neither RUN nor --model is given"
        raise InputError(fault, hint="nayer sample RUN, or nayer sample --model resnet18 --out images")
    if config.run and (config.model != ModelConfig() or config.method["name"] != AUTO or len(config.method) > 1):
        raise ConfigError("facts of a model and --method are for --model: a run has its own", hint="leave them out")
    if config.model.name and config.source != "bank":
        raise ConfigError("--source is for runs: with --model all images are fresh", hint="leave it out")


def _check_form(config: SampleConfig) -> None:
    form = format_of(config)
    if config.grid and (config.format or config.values or config.layout != "nchw"):
        raise ConfigError("--grid writes only one picture", hint="leave it out, or --format, --values and --layout")
    if is_file(config) and Path(str(config.out)).suffix != f".{form}":
        raise ConfigError(f"--out {config.out} cannot hold {form}", hint="name a folder, or leave out --format")
    if form == PNG and (values_of(config) != "pixels" or config.layout != "nchw"):
        raise ConfigError(
            "PNG files hold plain pixels, without --values and --layout", hint="choose --format npz or npy"
        )
    if form in ARRAYS and config.upscale > 1 and not config.grid:
        raise ConfigError("--upscale is for PNG files and grids", hint="leave it out, or choose --format png")


def _check_place(config: SampleConfig) -> None:
    if config.grid:
        return
    if config.model.name and not config.out:
        raise InputError("--out is missing", hint=f"nayer sample --model {config.model.name} --out images")
    out = place_of(config)
    if out.is_symlink() and not config.out:
        raise InputError(
            f"{out} is a symbolic link: nayer does not write through links", hint="choose a folder with --out"
        )
    if is_file(config):
        taken = [path for path in (out, out.with_name("manifest.json")) if path.exists() or path.is_symlink()]
        if taken:
            raise InputError(f"{taken[0]} exists", hint="choose another --out")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not an empty folder", hint="choose another --out")


def place_of(config: SampleConfig) -> Path:
    """Return the folder or file to write."""
    return Path(config.out or f"{config.run}/images")
