"""Names of networks, read from source text: timm itself takes seconds to import."""

import re
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from nayer_cli import plugins
from nayer_cli.classifiers import own
from nayer_cli.errors import EnvironmentFault, InputError, did_you_mean
from nayer_cli.storage import hub
from nayer_cli.storage.text import user_path

ASSETS = Path(__file__).parents[1] / "assets"
CONFIG = "config.json"
HUB = "hf-hub:"
WAYS_OUT = (
    "run once with a connection, or give a weight file (--teacher-weights, or --weights of nayer eval), "
    "or a folder: local-dir:DIR"
)
"""The hint where a hub does not deliver."""
OURS = (
    "mobilenetv2_cifar",
    *(f"resnet{depth}_cifar_{shortcut}" for depth in (20, 32, 44, 56, 110) for shortcut in "ab"),
    *("resnet8_digits", "resnet14_digits", "resnet18_cifar", "resnet34_cifar"),
    *("vgg11_cifar", "vgg19_cifar"),
    *("wrn_16_1", "wrn_16_2", "wrn_40_1", "wrn_40_2"),
)
"""The names that the families in `models/` register; a test compares the two."""
WEIGHT_FILES = (".safetensors", ".pth", ".pt", ".th", ".bin", ".ckpt")
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
    """Refuse, without building anything, what names no model.

    Raises:
        InputError: there is no such network, folder or code.
        EnvironmentFault: it is on the hub, which is switched off, and not in its cache.

    """
    folder = named_folder(name)
    if name.startswith(own.PREFIX):
        own.check(name)
    elif name.startswith(HUB):
        _require_on_hub(name)
    elif folder:
        described(folder, name)
    elif not user_path(name).exists() and Path(name).suffix != ".onnx" and not may_exist(name):
        raise no_model(name)


def _require_on_hub(name: str) -> None:
    repo, _, revision = name.removeprefix(HUB).partition("@")
    with suppress(ValueError):  # the hub itself says what is wrong with a name
        if hub.in_cache(repo, CONFIG, revision or None) is None and (reason := hub.trouble()):
            raise not_in_cache(name, CONFIG, repo, reason)


def not_in_cache(name: str, file: str, repo: str, reason: str) -> EnvironmentFault:
    """Return the fault of a model that cannot be had from the hub, for `reason`."""
    where = hub.repo_folder(repo).parent
    return EnvironmentFault(
        f"'{name}' ({file} of {repo}) is not in the Hugging Face cache {where}, and {reason}",
        hint=WAYS_OUT,
    )


def named_folder(name: str) -> Path | None:
    """Return the folder that `builtin:NAME` or `local-dir:DIR` means; None if `name` is neither."""
    scheme, _, rest = name.partition(":")
    if scheme == "builtin":
        return ASSETS / rest
    return Path(rest).expanduser() if scheme == "local-dir" else None


def described(folder: Path, name: str) -> Path:
    """Return where config.json lies: in the folder, or in `student/`, where a run directory has it.

    Raises:
        InputError: `name` means `folder`, and neither has one.

    """
    for candidate in (folder, folder / "student"):
        if (candidate / CONFIG).is_file():
            return candidate
    if folder.parent == ASSETS:
        raise InputError(
            f"there is no built-in model 'builtin:{folder.name}'{did_you_mean(name, builtin())}",
            hint=f"choose one of: {', '.join(builtin())}",
        )
    raise InputError(
        f"{folder} is not a model: it has neither {CONFIG} nor student/{CONFIG}",
        hint="name a folder saved by timm or nayer, or an architecture and its weight file",
    )


def no_model(name: str) -> InputError:
    """Return the fault of a name that means no model, by what it looks like."""
    if not name:
        return InputError("no model is named", hint="for example: resnet50, local-dir:DIR, or hf-hub:ORG/REPO")
    if own.offer(name):
        return unknown(name)
    if Path(name).suffix == ".onnx":
        return InputError(
            f"'{name}' is an ONNX file, which can be measured but not learned from",
            hint=f"nayer eval {name} measures it; to learn, name the model that it was exported from",
        )
    if Path(name).suffix in WEIGHT_FILES or user_path(name).is_file():
        return InputError(
            f"'{name}' is a weight file, and does not say which architecture it is for",
            hint=f"name the architecture too, for example: --teacher resnet18 --teacher-weights {name}, or where"
            f" a model is named: --model resnet18 --weights {name}",
        )
    if ":" in name:
        return InputError(
            f"'{name}' has an unknown prefix",
            hint="use hf-hub:, local-dir:, builtin: or py:; names of timm's models have no prefix",
        )
    if "/" in name or "\\" in name:
        return InputError(
            f"there is no folder '{name}'", hint=f"for a repository on the Hugging Face hub write {HUB}{name}"
        )
    return unknown(name)


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
