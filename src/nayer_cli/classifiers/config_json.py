"""The config.json of a model, in timm's layout, checked before anything is built from it."""

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nayer_cli.errors import InputError
from nayer_cli.quant.scheme import LEAST, MOST, WEIGHT_RANGES
from nayer_cli.storage.text import printable, read_json
from nayer_cli.types import CROP_MODES, INTERPOLATIONS

LARGEST_IMAGE = 2**26
"""Numbers of an image: 4096 × 4096 pixels in colour, and some."""
MOST_CLASSES = 1_000_000
BITS = tuple(range(LEAST, MOST + 1))
INDEX = re.compile(r"0|[1-9][0-9]{0,6}")


def read_model_json(path: Path) -> dict[str, Any]:
    """Read a config.json, and make sure that its facts are of the kinds that timm writes.

    Raises:
        InputError: the file cannot be read, is not JSON, or tells something else than it should.

    """
    document = read_json(path)
    if not isinstance(document, dict) or not isinstance(document.get("pretrained_cfg", {}), dict):
        raise InputError(
            f"{path} does not describe a timm model: it is not an object of settings",
            hint="name a folder saved by timm or nayer",
        )
    for facts in (document, document.get("pretrained_cfg", {})):
        check_facts(facts, path)
    return document


def check_facts(facts: Mapping[str, Any], where: Path) -> None:
    """Raise InputError if a fact of `FACTS` that file `where` tells is of another kind."""
    for fact, (fits, what) in FACTS.items():
        value = facts.get(fact)
        if value is not None and not fits(value):
            raise InputError(
                f"{where}: {fact} must be {what}, not {printable(repr(value))}", hint="correct it in that file"
            )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e9 < value < 1e9


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= MOST_CLASSES


def _is_shape(value: Any) -> bool:
    is_size = _is_list_of(value, lambda n: type(n) is int and 0 < n <= LARGEST_IMAGE)
    return is_size and len(value) == 3 and math.prod(value) <= LARGEST_IMAGE


def _are_numbers(value: object) -> bool:
    return _is_list_of(value, _is_number)


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 < value <= 2  # one of timm's networks has 1.15, which pads


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _are_names(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(map(INDEX.fullmatch, value)) and _are_names(list(value.values()))
    return _is_list_of(value, _is_text)


def _is_object(value: object) -> bool:
    return isinstance(value, Mapping)


def _are_texts_by_name(value: Any) -> bool:
    return _is_object(value) and all(_is_text(text) for text in value.values())


def _are_layers(value: object) -> bool:
    return _is_text(value) or _is_list_of(value, _is_text)


def _is_list_of(value: object, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(fits(item) for item in value)


def _is_scheme(value: Any) -> bool:
    if not _is_object(value) or value.get("weight_range", WEIGHT_RANGES[0]) not in WEIGHT_RANGES:
        return False
    bits = {name: one for name, one in value.items() if name != "weight_range"}
    allowed = {"weights": BITS, "activations": BITS, "first_last": (0, *BITS), "edges": (0, *BITS)}
    if bits.keys() != allowed.keys():
        return False
    return all(type(one) is int and one in allowed[name] for name, one in bits.items())


FACTS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "architecture": (_is_text, "a text"),
    "model_args": (_is_object, "an object"),
    "num_classes": (_is_count, f"a whole number up to {MOST_CLASSES:,}"),
    "input_size": (_is_shape, "[channels, height, width] of an image"),
    "test_input_size": (_is_shape, "[channels, height, width] of an image"),
    "crop_pct": (_is_share, "a number above 0, and at most 2"),
    "test_crop_pct": (_is_share, "a number above 0, and at most 2"),
    "interpolation": (lambda value: value in INTERPOLATIONS, f"one of {', '.join(INTERPOLATIONS)}"),
    "crop_mode": (lambda value: value in CROP_MODES, f"one of {', '.join(CROP_MODES)}"),
    "mean": (_are_numbers, "a list of numbers"),
    "std": (_are_numbers, "a list of numbers"),
    "label_names": (_are_names, "a list of texts, or an object of index and text"),
    "label_descriptions": (_are_texts_by_name, "an object of texts"),
    "first_conv": (_are_layers, "the name of a layer"),
    "classifier": (_are_layers, "the name of a layer"),
    "fixed_input_size": (lambda value: isinstance(value, bool), "true or false"),
    "quantization": (_is_scheme, "an object of weights, activations, first_last and edges, with 2 to 8 bits each"),
}
"""The facts that are used, with the kind that each must have. Others, such as `url` and `hf_hub_id`, are never read."""
PREPARATION = ("interpolation", "crop_pct", "crop_mode", "test_input_size", "test_crop_pct")
READ = (
    *("input_size", "mean", "std", "num_classes", "first_conv", "classifier", "fixed_input_size"),
    *PREPARATION,
)
"""The facts of its `pretrained_cfg` that are used."""
