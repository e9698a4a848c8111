"""Names of networks, read from source text: timm itself takes seconds to import."""

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

ASSETS = Path(__file__).parents[1] / "assets"
OURS = (
    "mobilenetv2_cifar",
    *(f"resnet{depth}_cifar_{shortcut}" for depth in (20, 32, 44, 56, 110) for shortcut in "ab"),
    *("resnet8_digits", "resnet14_digits", "resnet18_cifar", "resnet34_cifar"),
    *("vgg11_cifar", "vgg19_cifar"),
    *("wrn_16_1", "wrn_16_2", "wrn_40_1", "wrn_40_2"),
)
"""What the families in `models/` register; a test compares the two."""
ENTRYPOINT = re.compile(r"^@register_model\s+def (\w+)", re.MULTILINE)


def networks() -> list[str]:
    """Return the names that `timm.list_models()` has once our families are registered, sorted."""
    return sorted({*OURS, *ENTRYPOINT.findall(_timms_text())})


def builtin() -> list[str]:
    """Return the names of the trained networks that ship with nayer, such as `builtin:digits`."""
    return sorted(f"builtin:{path.parent.name}" for path in ASSETS.glob("*/config.json"))


def may_exist(name: str) -> bool:
    """Say whether timm or we may have network `name`: false only if it stands nowhere in timm's source text."""
    key = name.partition(".")[0]
    return key in OURS or not _timms_text() or re.search(rf"\b{re.escape(key)}\b", _timms_text()) is not None


@cache
def _timms_text() -> str:
    """Return the source of timm's networks; an empty text where timm is not installed as source."""
    timm = find_spec("timm")
    folder = Path(timm.origin).parent / "models" if timm and timm.origin else Path()
    return "\n".join(file.read_text(encoding="utf-8") for file in sorted(folder.glob("[!_]*.py")) if timm)
