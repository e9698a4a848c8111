import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nayer_cli import plugins
from nayer_cli.errors import InputError
from nayer_cli.lte.labels import canonical, distinct_names, read_labels


def written(tmp_path: Path, content: bytes | str, name: str = "classes.txt") -> str:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


@pytest.mark.parametrize(
    "content",
    [
        "cat\ndog\n",
        "cat\ndog",
        "cat\r\ndog\r\n",
        "cat\rdog\r",
        "\ufeffcat\ndog\n",
        "# animals\n\n  cat\t\n \ndog \n# the end",
    ],
)
def test_one_name_a_line(tmp_path: Path, content: str) -> None:
    assert read_labels(written(tmp_path, content)) == ("cat", "dog")


def test_names_in_any_script(tmp_path: Path) -> None:
    assert read_labels(written(tmp_path, "犬\nchat à poils\n")) == ("犬", "chat à poils")


@pytest.mark.parametrize("document", [["cat", "dog"], {"1": "dog", "0": "cat"}])
def test_json_lists_and_index_objects(tmp_path: Path, document: object) -> None:
    assert read_labels(written(tmp_path, json.dumps(document), "classes.json")) == ("cat", "dog")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ('"cat"', "neither a list of names nor an object"),
        ('{"0": "cat", "2": "dog"}', "none with the index 1"),
        ('["cat", ["n1", "dog"]]', "the name of class 1 is a list"),
        ('["cat", " "]', "class 1 is empty"),
        ('["cat", "\\ud800"]', "class 1 is not valid Unicode"),
        ('{"0": "cat", "1": "cow", "0": "dog"}', "the key '0' occurs twice"),
        ("[" * 5000, "nested too deeply"),
    ],
)
def test_json_that_does_not_name_classes(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_labels(written(tmp_path, content, "classes.json"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"cat\ncaf\xe9\n", "byte 7, on line 2, is 0xe9"),
        (b"\xff\xfec\x00a\x00", "byte 0, on line 1, is 0xff"),
        (b"cat\nd\x00g\n", "line 2 has control characters"),
        (b"cat\n\x1b[31mdog\n", "line 2 has control characters"),
        (b"", "names no class"),
        (b"# only a comment\n", "names no class"),
        (b"cat\n", "names one class"),
    ],
)
def test_files_that_are_no_list_of_names(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_labels(written(tmp_path, content))


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*: Is a directory"):
        read_labels(str(tmp_path))


def test_equal_names_are_refused_with_their_lines(tmp_path: Path) -> None:
    spec = written(tmp_path, "# names\ncrane\ntree frog\nCrane\ntree_frog\ncrane\n")
    with pytest.raises(InputError) as fault:
        read_labels(spec)
    assert "'crane' (line 2, line 4, line 6), 'tree frog' (line 3, line 5)" in str(fault.value)
    assert fault.value.hint is not None and "--dedupe index" in fault.value.hint


def test_dedupe_lets_equal_names_pass_as_they_are(tmp_path: Path) -> None:
    assert read_labels(written(tmp_path, "crane\ncrane\n"), "index") == ("crane", "crane")


def test_dedupe_appends_the_index_to_repeated_names_only() -> None:
    assert distinct_names(["crane", "cat", "Crane"], "index") == ("crane 0", "cat", "Crane 2")


def test_dedupe_that_makes_other_names_equal_is_refused() -> None:
    with pytest.raises(InputError, match=r"'crane 1' \(class 1, class 2\)"):
        distinct_names(["crane", "crane", "crane 1"], "index")


@pytest.mark.parametrize("known", [*plugins.names("datasets"), "imagenet:first", "tiny-imagenet:first"])
def test_a_set_that_ships_is_never_refused(known: str) -> None:
    names = read_labels(known)
    assert len(set(map(canonical, names))) == len(names)


def test_the_two_cranes_of_imagenet_are_told_apart() -> None:
    assert [read_labels("imagenet")[k] for k in (134, 517)] == ["crane (bird)", "crane (machine)"]
    assert [read_labels("imagenet:first")[k] for k in (264, 474)] == ["Cardigan, Cardigan Welsh corgi", "cardigan"]


def test_first_takes_one_of_several_synonyms() -> None:
    assert read_labels("tiny-imagenet")[0] == "goldfish, Carassius auratus"
    assert read_labels("tiny-imagenet:first")[0] == "goldfish"


def test_a_known_set_goes_before_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "cat\ndog\n", "cifar10")
    assert len(read_labels("cifar10")) == 10
    assert len(read_labels("./cifar10")) == 2


@pytest.mark.parametrize(
    ("spec", "message"),
    [("cifra10", "did you mean 'cifar10'"), ("imagenet:last", "imagenet:last"), ("no/such.txt", "neither a file")],
)
def test_an_unknown_specification_is_refused(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_labels(spec)


@given(st.lists(st.text("ab _-A0", min_size=1, max_size=4), min_size=1, max_size=8))
def test_distinct_names_are_distinct_or_refused(names: list[str]) -> None:
    try:
        found = distinct_names(names, "index")
    except InputError:
        return
    assert len(set(map(canonical, found))) == len(names)
