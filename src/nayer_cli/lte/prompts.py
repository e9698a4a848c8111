"""Prompts: the sentence around a class name that the text encoder reads."""

from collections.abc import Sequence
from string import Formatter

from nayer_cli.errors import ConfigError, did_you_mean

PROMPTS = {
    "p1": "a class of a {name}",
    "p2": "a photo of a {name}",
    "p3": "a photo of a {index}",
}
"""The prompts of NAYER, Table 6, by name."""

FIELDS = ("name", "index")


def template(prompt: str) -> str:
    """Return the template that `prompt` is, or is the name of.

    Raises:
        ConfigError: a template has other fields than `{name}` and `{index}`, or neither.

    """
    if prompt in PROMPTS:
        return PROMPTS[prompt]
    try:
        parts = list(Formatter().parse(prompt))
    except ValueError as error:
        raise ConfigError(f"prompt '{prompt}' cannot be read: {error}", hint="write {{ for a brace itself") from error
    used = [(field, form, conversion) for _, field, form, conversion in parts if field is not None]
    for field, form, conversion in used:
        if field not in FIELDS or form or conversion:
            shown = f"{field}{f'!{conversion}' if conversion else ''}{f':{form}' if form else ''}"
            raise ConfigError(
                f"prompt '{prompt}' has the field {{{shown}}}{did_you_mean(field, FIELDS)}",
                hint="a prompt may have {name} and {index}",
            )
    if not used:
        raise ConfigError(
            f"prompt '{prompt}' has neither {{name}} nor {{index}}, so all classes would be the same"
            f"{did_you_mean(prompt, PROMPTS)}",
            hint=f"for example: --prompt '{PROMPTS['p2']}'; or choose {', '.join(PROMPTS)}",
        )
    return prompt


def render(prompt: str, names: Sequence[str]) -> list[str]:
    """Put each class name (with spaces for `_` and `-`) and its index, from 0, into `prompt`."""
    words = (" ".join(name.replace("_", " ").replace("-", " ").split()) for name in names)
    return [template(prompt).format(name=name, index=index) for index, name in enumerate(words)]
