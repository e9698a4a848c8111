"""Class names of every kind: where they stand, how many there are, and that none of them leads anywhere."""

import json
import re
import shutil
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import nayer_cli
from nayer_cli.__main__ import main
from nayer_cli.errors import InputError
from nayer_cli.images.labelled import open_images
from nayer_cli.lte.labels import read_labels
from nayer_cli.types import ImageShape
from quick import quick

WILD = ("../../x", "C:\\x\\NUL", "NUL", "/etc/passwd", "x" * 300, "🦊", "שועל", "a\tb", ".hidden", "%2e%2e", "~", "-rf")
SHAPE = ImageShape(1, 8, 8)
FACTS = ["--teacher=py:wild:network", "--student=py:wild:network", "--input-size=8", "--mean=0.5", "--std=0.5"]
NETWORK = """
from torch import nn

def network():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, {})
    )
"""

AUTO = {"preset": "auto", "student.name": "resnet8_digits"}

Nayer = Callable[..., tuple[int, str]]


@pytest.fixture
def nayer(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nayer:
    """`nayer("distill", …)` in an empty folder gives the exit code and what it said, on one line."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str]:
        code = main([str(argument) for argument in arguments])
        return code, " ".join(capsys.readouterr().err.split())

    return run


def written(path: Path, names: bytes | str) -> str:
    path.write_bytes(names if isinstance(names, bytes) else names.encode())
    return str(path)


def options(settings: dict[str, object]) -> list[str]:
    return [f"--set={key}={json.dumps(value)}" for key, value in settings.items() if value is not None]


def test_names_stay_inside_the_folder_that_is_named(
    nayer: Nayer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "wild.py", NETWORK.format(len(WILD)))
    monkeypatch.syspath_prepend(tmp_path)
    labels = written(tmp_path / "names.txt", "\n".join(WILD))
    settings = quick(tmp_path, {"preset": "cifar10", "lte.labels": labels, "output.out": None})
    assert nayer("distill", *FACTS, *options(settings))[0] == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"\d{8}-\d{6}-wild-wild", run.name)
    before = set(tmp_path.parent.rglob("*"))
    assert nayer("sample", run, "--per-class", 1, "--out", tmp_path / "images")[0] == 0
    made = set(tmp_path.parent.rglob("*")) - before
    assert all(path.is_relative_to(tmp_path / "images") for path in made)
    manifest = json.loads((tmp_path / "images" / "manifest.json").read_text())
    assert all(re.fullmatch(r"\d{5}-[a-z0-9_.-]{1,60}", name) for name in manifest)
    assert [entry["name"] for _, entry in sorted(manifest.items())] == list(WILD)
    assert nayer("sample", run, "--grid", tmp_path / "grid.png")[0] == 0


@pytest.mark.parametrize("name", WILD)
def test_members_of_archives_are_read_in_place(name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in" / "x.tar", "w") as archive:
        for folder in (name, "cat"):
            file = BytesIO()
            Image.new("L", (8, 8)).save(file, "PNG")
            member = tarfile.TarInfo(f"{folder}/1.png")
            member.size = len(file.getvalue())
            archive.addfile(member, BytesIO(file.getvalue()))
    images = open_images(str(tmp_path / "in" / "x.tar"), shape=SHAPE)
    assert sum(len(labels) for _, labels in images.batches(8)) == (1 if name.startswith(".h") else 2)
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "x.tar"]


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2Jb", b"caf\xe9", "x/" * 5000])
def test_class_folders_without_a_name_to_show_are_refused(name: str | bytes, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        text = name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")
        archive.addfile(tarfile.TarInfo(f"{text}/1.png"))
        archive.addfile(tarfile.TarInfo("cat/1.png"))
    with pytest.raises(InputError) as fault:
        open_images(str(tmp_path / "x.tar"), shape=SHAPE)
    assert str(fault.value).isprintable()


def test_an_npz_with_such_names_is_refused(tmp_path: Path) -> None:
    names = np.array(["cat", "a\nb"])
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 8, 8), np.uint8), labels=np.arange(2), class_names=names)
    with pytest.raises(InputError, match=r"class 1 in .* has control characters"):
        open_images(str(tmp_path / "x.npz"), shape=SHAPE)


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "\ud800", "", "x" * 1001])
def test_names_that_a_checkpoint_brings_are_looked_at_too(name: str, nayer: Nayer, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(Path(nayer_cli.__file__).parent / "assets" / "digits", tmp_path / "teacher"))
    document = json.loads((folder / "config.json").read_text())
    document["label_names"] = [name, *map(str, range(9))]
    (folder / "config.json").write_text(json.dumps(document))
    code, told = nayer("distill", *options(quick(tmp_path, {**AUTO, "teacher.name": str(folder)})))
    assert code == 2
    assert "the checkpoint of 'resnet14_digits': class 0" in told and "no class name" in told
    assert not (tmp_path / "run").exists()
    of_others = (["eval", folder, "--data", "digits"], ["sample", "--model", folder, "--out", tmp_path / "run"])
    for words in (*of_others, ["export", folder, "--out", tmp_path / "run.onnx"]):
        assert (nayer(*words)[0], "no class name" in nayer(*words)[1]) == (2, True)


@pytest.mark.parametrize(
    ("names", "difference"),
    [
        ("# names\na\nb\n\nc\n", "there is no name for class 3, after line 5"),
        (
            "# names\n" + "".join(f"{letter}\n\n" for letter in "abcdefghijkl"),
            "'k' (line 22) is the first one too many",
        ),
    ],
)
def test_another_number_of_names_than_outputs(names: str, difference: str, nayer: Nayer, tmp_path: Path) -> None:
    spec = written(tmp_path / "names.txt", names)
    code, told = nayer("distill", "--labels", spec, "--device", "cpu", "--out", tmp_path / "run")
    count = len([line for line in names.splitlines()[1:] if line])
    assert code == 2 and difference in told
    assert f"has 10 outputs, but {count} class names were given ({spec})" in told


READABLE = {
    "crlf": b"cat\r\ndog\r\n",
    "cr": b"cat\rdog",
    "byte-order-mark": b"\xef\xbb\xbfcat\ndog\n",
    "blank-lines": b"\n\ncat\n \n\t\ndog\n\n",
    "blanks-around": b"  cat \t\n\tdog  ",
    "comments": b"# animals\ncat\n   # more\ndog\n#",
}


@pytest.mark.parametrize("kind", READABLE)
def test_label_files_by_the_documented_rule(kind: str, tmp_path: Path) -> None:
    assert read_labels(written(tmp_path / "names.txt", READABLE[kind])) == ("cat", "dog")


def test_a_number_sign_or_a_tab_within_a_line_is_part_of_the_name(tmp_path: Path) -> None:
    assert read_labels(written(tmp_path / "names.txt", "cat # 1\ncat\t2\n")) == ("cat # 1", "cat\t2")


UNREADABLE = {
    "empty": (b"", "names no class"),
    "comments-only": (b"# nothing\n\n", "names no class"),
    "one": (b"cat\n", "names one class; a classifier tells at least two apart"),
    "latin-1": (b"cat\ndog\ncaf\xe9\n", "byte 11, on line 3, is 0xe9"),
    "utf-16": ("cat\ndog\n".encode("utf-16"), "byte 0, on line 1, is 0xff"),
    "cut-within-a-letter": ("cat\ndög".encode()[:-2], "byte 5, on line 2, is 0xc3"),
    "binary": (bytes(range(1, 100)), "line 1 has control characters"),
    "zeros": (bytes(10**6), "line 1 has control characters"),
    "one-line-of-a-megabyte": (b"cat\n" + b"x" * 10**6, "line 2 has 1,000,000 characters, and a name at most 1,000"),
    "equal": (b"cat\ndog\ncat\n", "'cat' (line 1, line 3)"),
    "equal-but-for-case": (b"cat\nCat\n", "'cat' (line 1, line 2)"),
    "equal-but-for-space": (b"tree frog\n\ntree  frog\ntree_frog\nTree-Frog", "(line 1, line 3, line 4, line 5)"),
    "equal-but-for-composition": ("é\ne\u0301".encode(), "(line 1, line 2)"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_other_label_files_are_refused_with_the_line(kind: str, nayer: Nayer, tmp_path: Path) -> None:
    content, message = UNREADABLE[kind]
    spec = written(tmp_path / "names.txt", content)
    code, told = nayer("embed", "--labels", spec, "--encoder", "onehot", "--cache-dir", tmp_path / "cache")
    assert code == 2 and message in told and ("names.txt" in told or kind.startswith("equal"))
    assert len(told) < 1000
    if kind.startswith("equal"):
        assert "--dedupe index" in told


def test_different_names_with_equal_embeddings_are_named_with_their_lines(
    nayer: Nayer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mylab").mkdir()
    (tmp_path / "mylab" / "lengths.py").write_text(
        "import torch\n\nclass Lengths:\n    name, revision = 'lengths', '1'\n\n    def encode(self, texts):\n"
        "        return torch.tensor([[float(len(text)), 1.0] for text in texts])\n\n"
        "def open_encoder(argument, device):\n    return Lengths()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    spec = written(tmp_path / "names.txt", "# animals\nfrog\n\ncat\ndog\n")
    code, told = nayer("embed", "--labels", spec, "--encoder", "py:mylab.lengths", "--cache-dir", tmp_path / "cache")
    assert code == 2
    assert "'cat' (line 4) and 'dog' (line 5) have equal embeddings" in told and "--prompt '{name} {index}'" in told


def test_a_hundred_thousand_lines(tmp_path: Path) -> None:
    names = read_labels(written(tmp_path / "names.txt", "".join(f"class {index}\n" for index in range(100_000))))
    assert len(names) == 100_000 and names.places[-1] == "line 100000"


@pytest.mark.parametrize("spec", ["/dev/zero", "~nobody-here/names.txt", "names\0.txt", "x" * 5000])
def test_a_path_that_leads_to_no_list_is_refused(spec: str) -> None:
    with pytest.raises(InputError):
        read_labels(spec)
