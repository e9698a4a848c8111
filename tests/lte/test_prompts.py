import pytest

from nayer_cli.errors import ConfigError
from nayer_cli.lte.prompts import render, template


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("p1", ["a class of a cat", "a class of a maple tree"]),
        ("p2", ["a photo of a cat", "a photo of a maple tree"]),
        ("p3", ["a photo of a 0", "a photo of a 1"]),
        ("{index}: {name}{{}}", ["0: cat{}", "1: maple tree{}"]),
    ],
)
def test_prompts_hold_name_and_index(prompt: str, expected: list[str]) -> None:
    assert render(prompt, ["cat", "maple_tree"]) == expected


def test_dashes_and_underscores_are_read_as_spaces() -> None:
    assert render("{name}", ["man-eating  shark_"]) == ["man eating shark"]


def test_braces_in_a_name_are_left_alone() -> None:
    assert render("a {name}", ["{index}"]) == ["a {index}"]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a photo of a {nmae}", "did you mean 'name'"),
        ("a photo of a {}", "has the field {}"),
        ("a {name.__class__}", "name.__class__"),
        ("a {name!r}", "name!r"),
        ("a {index:03}", "index:03"),
        ("a photo", "neither {name} nor {index}"),
        ("P2", "did you mean 'p2'"),
        ("", "neither {name} nor {index}"),
        ("a {name", "cannot be read"),
    ],
)
def test_templates_that_do_not_tell_classes_apart(prompt: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        template(prompt)
