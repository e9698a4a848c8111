import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nayer_cli import layers
from nayer_cli.errors import ConfigError, InputError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b=3", ("a.b", 3)),
        (" a = 1e-3 ", ("a", 0.001)),
        ("a=true", ("a", True)),
        ("a=[1, 2]", ("a", [1, 2])),
        ("a='x = y'", ("a", "x = y")),
        ("a=a photo of {name}", ("a", "a photo of {name}")),
        ("a=2026-11-22", ("a", "2026-11-22")),
        ("a=", ("a", "")),
    ],
)
def test_an_assignment_holds_toml_or_else_text(text, expected):
    assert layers.parse_assignment(text) == expected


@pytest.mark.parametrize("text", ["adv", "=3", " = 3"])
def test_an_assignment_without_a_key_or_value_is_refused(text):
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        layers.parse_assignment(text)


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="."), min_size=1)
SCALARS = TEXT | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
VALUES = SCALARS | st.lists(SCALARS)


@given(st.dictionaries(KEYS, VALUES | st.dictionaries(KEYS, VALUES, min_size=1)))
def test_any_settings_survive_toml(tree):
    layer = dict(layers.flatten(tree))
    assert dict(layers.flatten(tomllib.loads(layers.to_toml(layer)))) == layer


def test_deep_tables_survive_toml():
    layer = {"a": 1, "method.name": "x", "method.optimizer.lr": 0.1}
    assert dict(layers.flatten(tomllib.loads(layers.to_toml(layer)))) == layer


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_toml_refuses_what_is_not_a_number(value):
    with pytest.raises(InputError, match=r"lr = .* is not a finite number"):
        layers.to_toml({"optimizer.lr": value})


@pytest.mark.parametrize(
    ("content", "message"), [(b"a = ", "not valid TOML"), (b"\xff", "not valid TOML"), (None, "cannot read")]
)
def test_a_file_that_cannot_be_read_is_named(content, message, tmp_path):
    path = tmp_path / "my.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"(?s)my.toml.*{message}|{message}.*my.toml"):
        layers.read_file(path)
