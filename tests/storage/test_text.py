from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nayer_cli.errors import InputError
from nayer_cli.storage import text


def written(folder: Path, content: bytes) -> Path:
    (folder / "x").write_bytes(content)
    return folder / "x"


def test_text_comes_without_its_byte_order_mark_and_with_its_line_ends(tmp_path: Path) -> None:
    assert text.read_text(written(tmp_path, b"\xef\xbb\xbfa\r\nb")) == "a\r\nb"


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"\xff", "byte 0, on line 1"),
        (b"a\r\nb\rc\n\xe9", "byte 7, on line 4"),
        ("ä".encode()[:1], "byte 0, on line 1"),
    ],
)
def test_a_byte_that_is_not_utf8_is_named_with_its_line(content: bytes, place: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"x is not UTF-8 text: {place}, is 0x"):
        text.read_text(written(tmp_path, content))


def test_no_more_is_read_than_a_file_may_have(tmp_path: Path) -> None:
    assert text.read_text(written(tmp_path, b"abc"), longest=3) == "abc"
    with pytest.raises(InputError, match="x is too long: a list may have at most 2 bytes"):
        text.read_text(written(tmp_path, b"abc"), "a list", longest=2)
    with pytest.raises(InputError, match="too long"):
        text.read_text(Path("/dev/zero"), longest=2)


@pytest.mark.parametrize("path", [Path("no/such"), Path("a\0b"), Path()])
def test_what_cannot_be_read_is_named(path: Path) -> None:
    with pytest.raises(InputError, match="cannot read a list"):
        text.read_text(path, "a list")


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "Expecting"), ('{"a": 1, "a": 2}', "the key 'a' occurs twice"), ("[" * 9999, "deeply")],
)
def test_json_that_is_none_or_ambiguous(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        text.parse_json(content)
    with pytest.raises(InputError, match=f"x is not valid JSON: .*{message}"):
        text.read_json(written(tmp_path, content.encode()))


def test_home_folders_and_paths_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert text.user_path("~/a") == Path("/home/me/a")
    assert text.user_path("~nobody-here/a") == Path("~nobody-here/a")
    with pytest.raises(InputError, match=r"cannot look for 'xxx.*…': File name too long"):
        text.user_path("x" * 5000)


@pytest.mark.parametrize("name", ["cat", "a\tb", "犬", "👩‍👧", "שועל", "x" * 1000, "'\"\\"])
def test_names_of_every_kind_are_fit(name: str) -> None:
    assert text.unfit(name) == ""


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("", "is empty"),
        (" \t", "is empty"),
        ("\u200b\ufeff", "is empty"),
        ("a\nb", "has control characters"),
        ("\x7f", "has control characters"),
        ("\ud800", "is not valid Unicode"),
        ("x" * 1001, "has 1,001 characters"),
    ],
)
def test_names_that_cannot_be_shown_or_written_are_not(name: str, fault: str) -> None:
    assert fault in text.unfit(name)


@given(st.text())
def test_what_is_printable_is_one_short_line_of_utf8(string: str) -> None:
    shown = text.printable(string)
    assert shown.isprintable() and len(shown.encode()) >= len(shown)
    assert shown == string or not string.isprintable() or len(string) > text.SHOWN
