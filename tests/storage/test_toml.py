import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nayer_cli.errors import ConfigError, InputError
from nayer_cli.storage import toml


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
        ("a=1\nb=2", ("a", "1\nb=2")),
    ],
)
def test_an_assignment_holds_toml_or_else_text(text, expected):
    assert toml.parse_assignment(text) == expected


@pytest.mark.parametrize("text", ["adv", "=3", " = 3"])
def test_an_assignment_without_a_key_or_value_is_refused(text):
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        toml.parse_assignment(text)


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="."), min_size=1)
SCALARS = TEXT | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
VALUES = SCALARS | st.lists(SCALARS)


@given(st.dictionaries(KEYS, VALUES | st.dictionaries(KEYS, VALUES, min_size=1)))
def test_any_settings_survive_toml(tree):
    layer = dict(toml.flatten(tree))
    assert dict(toml.flatten(tomllib.loads(toml.to_toml(layer)))) == layer


def test_deep_tables_survive_toml():
    layer = {"a": 1, "method.name": "x", "method.optimizer.lr": 0.1}
    assert dict(toml.flatten(tomllib.loads(toml.to_toml(layer)))) == layer


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_toml_refuses_what_is_not_a_number(value):
    with pytest.raises(InputError, match=r"lr = .* is not a finite number"):
        toml.to_toml({"optimizer.lr": value})


@pytest.mark.parametrize(
    ("content", "message"), [(b"a = ", "not valid TOML"), (b"\xff", "not UTF-8 text: byte 0"), (None, "cannot read")]
)
def test_a_file_that_cannot_be_read_is_named(content, message, tmp_path):
    path = tmp_path / "my.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"(?s)my.toml.*{message}|{message}.*my.toml"):
        toml.read_file(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a = " + b"[" * 9999, "nested too deeply"),
        (b"a = [[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]", "nested too deeply"),
        (b"a = 9223372036854775808", "more than 64 bits"),
        (b"a = " + b"9" * 5000, "not valid TOML"),
        (b"a." * 5000 + b"a = 1", "more than 4,000 dots"),
        (b"#" * (2**20 + 1), "configuration may have at most 1,048,576 bytes"),
    ],
)
def test_a_file_of_no_settings_is_refused(content, message, tmp_path):
    (tmp_path / "my.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"my\.toml .*{message}"):
        toml.read_file(tmp_path / "my.toml")


def test_a_byte_order_mark_does_not_matter(tmp_path):
    (tmp_path / "my.toml").write_bytes(b"\xef\xbb\xbfa = 1")
    assert toml.read_file(tmp_path / "my.toml") == {"a": 1}


def test_keys_that_are_too_deep_are_refused():
    with pytest.raises(ConfigError, match=r"'a\.a\..*' is nested too deeply"):
        toml.unflatten({"a." * 30 + "a": 1})


@pytest.mark.parametrize("value", ["a\0b", "\udcff"])
def test_texts_that_are_no_path_are_refused(value):
    with pytest.raises(ConfigError, match="has a NUL, or bytes that are not UTF-8"):
        toml.coerce("output.out", value, str)


@pytest.mark.parametrize(("text", "value"), [(".49", 0.49), ("-.5", -0.5), ("1.", 1.0), (".5e-3", 0.0005)])
def test_a_number_may_begin_or_end_with_its_point(text, value):
    assert toml.coerce("x", toml.parse_assignment(f"x={text}")[1], float) == value
