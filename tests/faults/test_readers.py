"""Damaged and lying safetensors files, as weights and as pools, and pools that are not of these classes."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import hostile
from hostile import TERA, entry, safetensors
from nayer_cli.__main__ import main
from nayer_cli.classifiers.fitting import load_weights
from nayer_cli.classifiers.weights import read_weights
from nayer_cli.errors import InputError
from nayer_cli.lte.pool import Pool, load_pool, save_pool
from nayer_cli.runs.distill import distill
from quick import quick

FLOATS = {"a": entry([2], 0, 8), "b": entry([3], 8, 20)}
DATA = bytes(20)

BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "it has 0 bytes"),
    "header-longer-than-the-file": (safetensors(FLOATS, DATA, 10**6), "header is said to be 1,000,000 bytes long"),
    "header-of-exabytes": (safetensors(FLOATS, DATA, 2**63), "header is said to be 9,223,372,036,854,775,808 bytes"),
    "truncated": (safetensors(FLOATS, DATA[:-5]), "tensor 'b' ends at byte 20, but there are 15: the file is cut off"),
    "a-terabyte": (safetensors({"a": entry([TERA], 0, 4 * TERA)}), "tensor 'a' ends at byte 4,000,000,000,000"),
    "a-terabyte-in-8-bytes": (safetensors({"a": entry([TERA], 0, 8)}, DATA[:8]), "tensor 'a' has 8 bytes"),
    "overlapping": (safetensors({**FLOATS, "b": entry([3], 4, 16)}, DATA[:16]), "tensor 'b' overlaps with tensor 'a'"),
    "hole": (safetensors({"b": FLOATS["b"]}, DATA), "8 bytes before tensor 'b' belong to no tensor"),
    "left-over": (safetensors(FLOATS, DATA + b"123"), "3 bytes after tensor 'b' belong to no tensor"),
    "unknown-type": (safetensors({"a": entry([2], 0, 8, "F99")}, DATA[:8]), "tensor 'a' is of the unknown type F99"),
    "wrong-type": (safetensors({"a": entry([2], 0, 8, "F64")}, DATA[:8]), "tensor 'a' has 8 bytes, which is not its"),
    "type-that-is-a-list": (safetensors({"a": entry([2], 0, 8, [])}, DATA[:8]), "tensor 'a' is described by something"),
    "wrong-shape": (safetensors({"a": entry([3], 0, 8)}, DATA[:8]), "tensor 'a' has 8 bytes, which is not its shape"),
    "negative-shape": (safetensors({"a": entry([-2], 0, 8)}, DATA[:8]), "tensor 'a' has a shape or an offset"),
    "fractional-shape": (safetensors({"a": entry([2.0], 0, 8)}, DATA[:8]), "tensor 'a' has a shape or an offset"),
    "shape-of-a-million-numbers": (safetensors({"a": entry([2**62] * 10**6, 0, 8)}, DATA[:8]), "tensor 'a' has 8 byt"),
    "offsets-reversed": (safetensors({"a": entry([2], 8, 0)}, DATA[:8]), "tensor 'a' has 0 bytes"),
    "no-offsets": (safetensors({"a": {"dtype": "F32", "shape": [2]}}, DATA[:8]), "tensor 'a' is described by"),
    "one-name-twice": (safetensors(b'{"a": {}, "a": {}}'), "the key 'a' occurs twice"),
    "no-json": (safetensors(b"{"), "not valid JSON"),
    "json-nested-deeply": (safetensors(b'{"a": ' + b"[" * 10**5), "nested too deeply"),
    "a-list": (safetensors([]), "not an object of tensors"),
    "an-escape-sequence": (safetensors({"\x1b[2J": 0}), r"tensor '\x1b[2J' is described by"),
    "a-zip": (b"PK\x03\x04 something", "it is a zip archive, such as torch.save and numpy.savez write"),
    "a-numpy-array": (hostile.npy((2, 3)), "it is a NumPy array"),
    "a-pickle": (b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00]", "it is a pickle"),
}
READERS = {"weights": "nayer_cli.classifiers.weights:read_weights", "pool": "nayer_cli.lte.pool:load_pool"}


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, hostile.Refusal]:
    """Let a process with little memory read every broken file with every reader."""
    folder = tmp_path_factory.mktemp("broken")
    files = {f"{folder}/{role}-{name}.safetensors": reader for role, reader in READERS.items() for name in BROKEN}
    for path in files:
        Path(path).write_bytes(BROKEN[Path(path).stem.partition("-")[2]][0])
    return {Path(path).stem: found for path, found in hostile.read_all(files).items()}


@pytest.mark.parametrize("role", READERS)
@pytest.mark.parametrize("name", BROKEN)
def test_one_line_names_file_and_tensor_and_nothing_is_allocated(
    role: str, name: str, refusals: dict[str, hostile.Refusal]
) -> None:
    refusal = refusals[f"{role}-{name}"]
    assert (refusal.kind, refusal.message.count("\n")) == ("InputError", 0)
    assert f"{role}-{name}.safetensors" in refusal.message
    assert BROKEN[name][1] in refusal.message
    # The million numbers are 20 MB of text; the others are a few bytes.
    assert refusal.grown_mb < (200 if "million" in name else 16)


@pytest.mark.parametrize("name", ["truncated", "overlapping", "a-terabyte"])
def test_commands_say_so_and_end_with_2(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(BROKEN[name][0])
    out = tmp_path / "run"
    for option in (["--teacher-weights", path], ["--lte", path]):
        assert main([*map(str, ["distill", *option, "--device", "cpu", "--out", out])]) == 2
        err = capsys.readouterr().err
        assert "x.safetensors is not a valid safetensors file: tensor '" in " ".join(err.split())
        assert "Traceback" not in err
    assert not out.exists()


def test_weights_of_another_type_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"weight": torch.ones(2, 3, dtype=torch.int8), "bias": torch.ones(2).half()}, path)
    with pytest.raises(InputError, match=r"1 of another type \(weight is int8 instead of float32\)"):
        load_weights(torch.nn.Linear(3, 2), read_weights(path), name="net", path=path)


@pytest.mark.parametrize(
    "make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to(path)], ids=["pipe", "folder", "circle"]
)
@pytest.mark.parametrize("read", [read_weights, load_pool])
def test_what_is_no_file_is_not_waited_for(make: Any, read: Any, tmp_path: Path) -> None:
    make(tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=r"there is no .*x\.safetensors"):
        read(tmp_path / "x.safetensors")


NAMES = ("cat", "dog", "cow")
TABLE = torch.eye(3, 4)


@pytest.mark.parametrize(
    ("table", "names", "difference"),
    [
        (TABLE[:2], NAMES[:2], "has 2 embeddings, but there are 3 classes"),
        (TABLE, ("cat", "cow", "dog"), "a different order of the classes: class 1 is 'cow' there, and 'dog' here"),
        (TABLE, ("cat", "dog", "cab"), "for other classes: class 2 is 'cab' there, and 'cow' here"),
        (TABLE * torch.tensor([1, 1, torch.nan, 1]), NAMES, "the embedding of 'cat' (class 0) is not finite"),
        (TABLE[[0, 1, 0]], NAMES, "'cat' (class 0) and 'cow' (class 2) have equal embeddings"),
    ],
    ids=["rows", "order", "names", "nan", "equal"],
)
def test_a_pool_says_what_differs(table: torch.Tensor, names: tuple[str, ...], difference: str, tmp_path: Path) -> None:
    save_pool(tmp_path / "p", Pool(table, names))
    with pytest.raises(InputError) as fault:
        load_pool(tmp_path / "p", NAMES)
    assert difference in str(fault.value)
    assert fault.value.hint


@pytest.mark.parametrize("shape", [[3], [3, 4, 1], [3, 0]])
def test_a_pool_of_another_dimension_is_refused(shape: list[int], tmp_path: Path) -> None:
    save_file({"embeddings": torch.ones(shape)}, tmp_path / "p")
    with pytest.raises(InputError, match=r"embeddings must be \[classes, width\]"):
        load_pool(tmp_path / "p", NAMES)


def test_a_pool_of_another_version_is_refused(tmp_path: Path) -> None:
    save_file({"embeddings": TABLE}, tmp_path / "p", metadata={"format": "nayer.lte/9"})
    with pytest.raises(InputError, match=r"has format nayer\.lte/9, but this nayer reads nayer.lte/1"):
        load_pool(tmp_path / "p", NAMES)


@pytest.mark.parametrize("width", [512, 100])
def test_a_run_does_not_go_on_with_other_embeddings(
    width: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    distill(quick(tmp_path))
    path = tmp_path / "run" / "lte.safetensors"
    names = load_pool(path).names
    save_pool(path, Pool(torch.randn(10, width, generator=torch.Generator().manual_seed(5)), names))
    assert main(["distill", "--resume", str(tmp_path / "run"), "--epochs", "3"]) in (2, 4)
    told = " ".join(capsys.readouterr().err.split())
    assert "the LTE pool is not the one it was started with" in told and "Traceback" not in told
