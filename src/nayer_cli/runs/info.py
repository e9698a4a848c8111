"""The recipe of `nayer info`: what is installed, what this machine has, and what can be chosen."""

import ast
import fnmatch
import os
import platform
import re
from collections.abc import Iterator
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from nayer_cli import __version__, config, plugin_settings, plugins
from nayer_cli.classifiers import names
from nayer_cli.errors import InputError, did_you_mean
from nayer_cli.machine import processor
from nayer_cli.storage import caches

DISTRIBUTION = "nayer-cli"
PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "sentence-transformers",
    "transformers",
    "huggingface-hub",
    "safetensors",
    "scikit-learn",
    "numpy",
    "typer",
    "rich",
)
FOLDERS = ("methods", "generators", "encoders", "datasets")
BYTES_IN_BANK = 3 * 32 * 32 + 8
"""An image of 3×32×32 in the memory bank, with its label."""

MISMATCH = "operator torchvision::nms does not exist"
"""torchvision's error if torch comes from another build."""
MEND_MISMATCH = "pip install --force-reinstall torch torchvision"
"""Mends it: one command finds a pair that fits."""


def describe_installation() -> dict[str, Any]:
    """Return versions, extras, caches, the plug-ins and presets to choose from, problems and devices."""
    return describe_packages() | describe_machine()


def describe_packages() -> dict[str, Any]:
    """Return what can be told without torch: versions, extras, processor, caches, plug-ins and presets."""
    return {
        "nayer": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in PACKAGES},
        "extras": {extra: {name: version(name) for name in names} for extra, names in extras().items()},
        "processor": processor.describe(),
        "caches": _caches(),
        "presets": config.preset_names(),
        "installed_plugins": {kind: brought for kind in plugins.DECLARED if (brought := _brought(kind))},
        **{folder: plugins.names(folder) for folder in FOLDERS},
    }


def describe_machine() -> dict[str, Any]:
    """Return problems and devices, for which torch and torchvision are imported: seconds on a slow machine."""
    return {"problems": list(_problems()), "devices": list(_devices())}


def describe_plugins(folder: str) -> dict[str, str]:
    """Return the plug-ins of `folder` with the first line of each file, or the package that brings it.

    Nothing is imported.
    """
    ours = {name: _first_line(plugins.file(folder, name)) for name in plugins.own(folder)}
    return dict(sorted((ours | {name: f"of {package}" for name, package in _brought(folder).items()}).items()))


def _brought(kind: str) -> dict[str, str]:
    return {name: plugins.package(entry) for name, entry in plugins.installed(kind).items()}


def describe_memory() -> dict[str, dict[str, Any]]:
    """Return what each method of ours keeps (`Method.keeps`), and the MB that 1,000 images of 3×32×32 take there.

    Nothing is imported: it is read in the files.
    """
    return {name: _memory(name) for name in plugins.own("methods")}


def find_models(pattern: str) -> list[str]:
    """Return the names in timm's registry, ours included, that match a shell pattern such as `wrn*`.

    Raises:
        InputError: none does.

    """
    known = names.networks()
    found = fnmatch.filter(known, pattern)
    if not found:
        raise InputError(
            f"no network matches '{pattern}'{did_you_mean(pattern, known)}",
            hint=f"add stars: nayer info --models '*{pattern}*'",
        )
    return found


def version(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def extras() -> dict[str, list[str]]:
    """Return the packages of each extra that is meant for users, as our own metadata have them."""
    found: dict[str, list[str]] = {}
    requirements = metadata.requires(DISTRIBUTION) if version(DISTRIBUTION) else None
    for requirement in requirements or ():
        package = re.match(r"[\w.-]+", requirement)
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        if package and extra and package[0] != DISTRIBUTION and extra[1] != "dev":
            found.setdefault(extra[1], []).append(package[0])
    return found


def _first_line(file: Path) -> str:
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def _memory(name: str) -> dict[str, Any]:
    tree = ast.parse(plugins.file("methods", name).read_text(encoding="utf-8"))
    (method,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Method")
    functions = {node.name for node in method.body if isinstance(node, ast.FunctionDef)}
    said = plugin_settings.literals("methods", name, "Method")
    keeps = said.get("keeps", "live" if "replay" in functions else "bank")
    size = said.get("bytes_kept", 0 if keeps == "live" else BYTES_IN_BANK)
    return {"keeps": keeps, "mb_per_1000_images": round(size * 1000 / 1e6, 1)}


def _problems() -> Iterator[dict[str, str]]:
    """Yield what is broken, each with the command that mends it."""
    try:
        import_module("torchvision")
    except Exception as error:  # whatever it is, it is the answer
        mend = MEND_MISMATCH if MISMATCH in str(error) else "pip install --upgrade torch torchvision"
        yield {"what": f"torchvision cannot be imported: {error}", "mend": mend}
    for kind in plugins.DECLARED:
        for name, entry in plugins.shadowed(kind).items():
            yield {
                "what": f"{plugins.package(entry)} brings '{name}' for {kind}, but nayer has its own, which is used",
                "mend": f"name it by its path: {entry.module}",
            }


def _devices() -> Iterator[dict[str, str | float]]:
    """Yield the devices that `--device` can name, with their memory in GB."""
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    yield {"device": "cpu", "name": f"{torch.get_num_threads()} threads", "gb": round(memory / 1e9, 1)}
    for i in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(i)
        yield {"device": f"cuda:{i}", "name": about.name, "gb": round(about.total_memory / 1e9, 1)}


def _caches() -> dict[str, str]:
    """Return where pools and models are kept."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return {
        "label-text embeddings": str(caches.cache_folder()),
        "Hugging Face hub": HF_HUB_CACHE,
        "torch hub": str(caches.torch_hub()),
    }
