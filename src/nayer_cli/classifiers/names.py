"""Names of networks, read from source text: timm itself takes seconds to import."""

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from nayer_cli import plugins
from nayer_cli.classifiers import own
from nayer_cli.errors import InputError, did_you_mean

ASSETS = Path(__file__).parents[1] / "assets"
OURS = (
    "mobilenetv2_cifar",
    *(f"resnet{depth}_cifar_{shortcut}" for depth in (20, 32, 44, 56, 110) for shortcut in "ab"),
    *("resnet8_digits", "resnet14_digits", "resnet18_cifar", "resnet34_cifar"),
    *("vgg11_cifar", "vgg19_cifar"),
    *("wrn_16_1", "wrn_16_2", "wrn_40_1", "wrn_40_2"),
)
"""The names that the families in `models/` register; a test compares the two."""
WEIGHT_FILES = (".safetensors", ".pth", ".pt", ".th", ".bin", ".ckpt", ".onnx")
"""Ends of names of files that hold weights, and do not tell their architecture."""
ENTRYPOINT = re.compile(r"^@register_model\s+def (\w+)", re.MULTILINE)


def networks() -> list[str]:
    """Return the names that `timm.list_models()` has once our families and installed ones are registered, sorted."""
    return sorted({*OURS, *ENTRYPOINT.findall(_timms_text()), *plugins.installed("models")})


def builtin() -> list[str]:
    """Return the names of the trained networks that ship with nayer, such as `builtin:digits`."""
    return sorted(f"builtin:{path.parent.name}" for path in ASSETS.glob("*/config.json"))


def may_exist(name: str) -> bool:
    """Say whether timm or we may have network `name`: false only if nothing installed brings it."""
    key = name.partition(".")[0]
    if key in OURS or key in plugins.installed("models"):
        return True
    return not _timms_text() or re.search(rf"\b{re.escape(key)}\b", _timms_text()) is not None


def check(name: str) -> None:
    """Refuse a word that looks like a network's name and is not one; others check paths and prefixes.

    Raises:
        InputError: there is no such network.

    """
    is_word = re.fullmatch(r"[\w.-]+", name) and Path(name).suffix not in WEIGHT_FILES
    if is_word and not Path(name).exists() and not may_exist(name):
        raise unknown(name)


def unknown(name: str) -> InputError:
    """Return the fault of a name that no network has; code of the user's own is answered with the form that works."""
    if form := own.offer(name):
        return InputError(f"'{name}' is Python code: name its module instead", hint=f"write {form}")
    return InputError(
        f"timm has no model '{name}'{did_you_mean(name, networks())}",
        hint=f"nayer info --models '*{name[:4]}*' lists names; a folder must have config.json",
    )


@cache
def _timms_text() -> str:
    """Return the source of timm's networks; an empty text where timm is not installed as source."""
    timm = find_spec("timm")
    folder = Path(timm.origin).parent / "models" if timm and timm.origin else Path()
    return "\n".join(file.read_text(encoding="utf-8") for file in sorted(folder.glob("[!_]*.py")) if timm)
