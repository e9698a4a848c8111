"""Any bytes as a label file, a pool, weights or data are read, or refused by a fault of ours."""

import json
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import hostile
from fuzzing import edited, refused_or_read
from nayer_cli.classifiers.weights import read_weights
from nayer_cli.errors import NayerError
from nayer_cli.images.sources.npz import read_npz
from nayer_cli.images.sources.tar import TarSource
from nayer_cli.lte.labels import canonical, read_labels
from nayer_cli.lte.pool import Pool, load_pool, save_pool
from nayer_cli.runs.folder import slug
from nayer_cli.storage.text import unfit

NAMES = ("cat", "dog", "tree frog")
LABELS = "# animals\ncat\n\n  dog\t\r\ntree frog\nKröte 🐸".encode()
JSON_LABELS = json.dumps({"0": "cat", "1": "dog", "2": "tree frog"}).encode()


@given(st.binary(max_size=300) | st.text().map(str.encode) | edited(LABELS))
@example(b"\xff\xfec\0a\0t\0")
@example(b"cat\n" * 2)
@example("a\u2028b\nc\x85d".encode())
def test_any_bytes_as_a_label_file(content: bytes) -> None:
    found = refused_or_read(lambda path: read_labels(str(path)), content)
    if isinstance(found, tuple):
        assert len(set(map(canonical, found))) == len(found) == len(found.places) > 1  # type: ignore[attr-defined]


DOCUMENTS = st.recursive(
    st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(st.binary(max_size=200) | DOCUMENTS.map(json.dumps).map(str.encode) | edited(JSON_LABELS))
@example(b"[" * 10**5)
@example(b'["a", ' + b"9" * 5000 + b"]")
@example(b'["a", "\\ud800"]')
@example(b'{"0": "cat", "1": "dog", "0": "cow"}')
def test_any_bytes_as_json_labels(content: bytes) -> None:
    refused_or_read(lambda path: read_labels(str(path)), content, "x.json")


PLAIN_NAMES = st.lists(
    st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=30).filter(
        lambda name: not unfit(name)
    ),
    max_size=6,
)


@given(PLAIN_NAMES.map(lambda names: [name.strip() for name in names if not name.strip().startswith("#")]))
def test_names_survive_a_label_file(names: list[str]) -> None:
    found = refused_or_read(lambda path: read_labels(str(path)), "\n".join(["\ufeff# names", *names]).encode())
    equal = len(set(map(canonical, names))) < len(names)
    assert isinstance(found, NayerError) if equal or len(names) < 2 else found == tuple(names)


def a_pool() -> bytes:
    with TemporaryDirectory() as folder:
        save_pool(Path(folder, "p"), Pool(torch.eye(3, 4) + 0.5, NAMES, "sbert", "7", "a {name}"))
        return Path(folder, "p").read_bytes()


POOL = a_pool()
NUMBERS = st.integers(-1, 20) | st.sampled_from([2**31, 2**63, 2**64, 10**30]) | st.floats() | st.none()
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "F64", "F8_E4M3", "F4", "I64", "BOOL", "C64", "F99", 1]),
        "shape": st.lists(NUMBERS, max_size=3) | st.just([3, 4]),
        "data_offsets": st.tuples(NUMBERS, NUMBERS) | st.just((0, 48)),
    }
)
METADATA = st.dictionaries(
    st.sampled_from(["format", "names", "names_sha256", "encoder", "revision", "prompt"]),
    st.text() | st.sampled_from(["nayer.lte/1", "nayer.lte/2", "pt", '["a"]', "[1]", "[" * 5000]) | st.integers(),
)
HEADERS = st.fixed_dictionaries(
    {}, optional={"embeddings": ENTRY, "other": ENTRY, "__metadata__": METADATA | st.none() | st.text()}
)


@given(
    st.sampled_from([None, NAMES]),
    st.binary(max_size=100)
    | edited(POOL)
    | st.builds(hostile.safetensors, HEADERS | st.binary(max_size=50), st.binary(max_size=60) | st.just(bytes(48))),
)
@example(None, hostile.safetensors({"embeddings": hostile.entry([3, 4], 0, 48)}, bytes(range(48))))
@example(NAMES, hostile.safetensors({"embeddings": hostile.entry([2, 4], 0, 4, "F4")}, bytes(range(4))))
@example(None, hostile.safetensors({"embeddings": hostile.entry([10**12, 1], 0, 4 * 10**12)}))
def test_any_bytes_as_a_pool(names: tuple[str, ...] | None, content: bytes) -> None:
    found = refused_or_read(partial(load_pool, names=names), content)
    if isinstance(found, Pool):
        assert found.embeddings.isfinite().all()
        assert len(found.embeddings) == len(found.names)


@given(PLAIN_NAMES, st.integers(1, 5), st.integers(0, 99))
def test_a_pool_survives_its_file(names: list[str], width: int, seed: int) -> None:
    table = torch.randn(len(names), width, generator=torch.Generator().manual_seed(seed))
    with TemporaryDirectory() as folder:
        save_pool(Path(folder, "p"), Pool(table, tuple(names), "sbert", "7", "a {name}"))
        found = refused_or_read(load_pool, Path(folder, "p").read_bytes())
    if names:
        assert isinstance(found, Pool) and found.names == tuple(names) and torch.equal(found.embeddings, table)


def bytes_of(save: Callable[[BytesIO], object]) -> bytes:
    file = BytesIO()
    save(file)
    return file.getvalue()


def a_tar() -> bytes:
    with TemporaryDirectory() as folder:
        hostile.tar(Path(folder, "x"), {"cat/1.png": 50, "dog/2.png": 50})
        return Path(folder, "x").read_bytes()


CHECKPOINT = {"state_dict": {"weight": torch.ones(2, 3)}, "epoch": 3}
OTHERS: dict[str, tuple[Callable[[Path], object], bytes]] = {
    "x.pth": (read_weights, bytes_of(partial(torch.save, CHECKPOINT))),
    "y.pth": (read_weights, bytes_of(lambda file: torch.save(CHECKPOINT, file, _use_new_zipfile_serialization=False))),
    "x.safetensors": (read_weights, POOL),
    "x.npz": (
        read_npz,
        bytes_of(lambda file: np.savez(file, images=np.zeros((2, 4, 4), np.uint8), labels=np.arange(2))),
    ),
    "x.tar.gz": (partial(TarSource, split="validation"), a_tar()),
}


@pytest.mark.parametrize("name", OTHERS)
@given(data=st.data())
def test_damaged_weights_and_data(name: str, data: st.DataObject) -> None:
    read, whole = OTHERS[name]
    refused_or_read(read, data.draw(edited(whole)), name)


@given(st.text())
@example("..")
@example("../../x")
@example("C:\\x\\NUL")
@example("x" * 300)
def test_a_slug_is_a_plain_part_of_a_path(name: str) -> None:
    made = slug(name)
    assert 0 < len(made) <= 60 and made.isascii() and not set(made) & set('/\\:*?"<>|\0 ') and made.strip(".")
