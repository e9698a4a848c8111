"""A budget, which limits a run: a text such as `20m`, `20cpu-m`, `450000images` or `2e15flop`, and its meaning."""

import math
import re
from dataclasses import dataclass

from nayer_cli.errors import ConfigError

SECONDS, PROCESSOR, IMAGES, FLOP = "seconds", "processor seconds", "images", "flop"
"""The kinds of amounts that are counted."""
FACTORS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
UNITS = {
    **{unit: (SECONDS, factor) for unit, factor in FACTORS.items()},
    **{f"cpu-{unit}": (PROCESSOR, factor) for unit, factor in FACTORS.items()},
    "images": (IMAGES, 1),
    "flop": (FLOP, 1),
}
"""The kind of amount that each unit counts, and how much of it one unit is."""
FORM = re.compile(r"\s*(\d+(?:\.\d*)?(?:e\+?\d+)?|\.\d+)\s*([a-z-]*)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Budget:
    """An amount of time, images or operations.

    Args:
        text: as it was typed.
        counts: one of `SECONDS`, `PROCESSOR`, `IMAGES` and `FLOP`.
        amount: how many of them, greater than 0.

    """

    text: str
    counts: str
    amount: float


def parse_budget(text: str) -> Budget:
    """Read a budget.

    Raises:
        ConfigError: it is not a number greater than 0 with a unit of `UNITS`.

    """
    found = FORM.fullmatch(text)
    unit = found[2].lower() if found else ""
    if not found or unit not in UNITS:
        raise ConfigError(
            f"'{text}' is not a budget: write a number and one of the units {', '.join(UNITS)}",
            hint="for example --budget 20m, 20cpu-m (processor time), 450000images (seen by the student), 2e15flop",
        )
    counts, factor = UNITS[unit]
    amount = float(found[1]) * factor
    if not 0 < amount < math.inf:
        raise ConfigError(
            f"a budget of '{text}' is out of range: it must be greater than 0, and finite",
            hint="for example: --budget 20m",
        )
    return Budget(text.strip(), counts, amount)
