"""Whatever is in a file of a checkpoint, reading it ends with a state or with a fault that says so."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nayer_cli.bankstore import open_bank
from nayer_cli.checkpoint import load_state, read_manifest, save_state, seal, verify, write_manifest
from nayer_cli.errors import RunFailed

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
STATE = {"loop": {"epoch": 3}, "weight": torch.arange(6.0).view(2, 3), 0: [None, True, "x"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def valid(folder: Path) -> tuple[bytes, bytes]:
    """A state and a manifest as they are written."""
    save_state(folder / "valid.safetensors", STATE)
    write_manifest(folder / "valid.json", {"valid.safetensors": seal(folder / "valid.safetensors")})
    return (folder / "valid.safetensors").read_bytes(), (folder / "valid.json").read_bytes()


def mutate(content: bytes, place: int, new: bytes, cut: int) -> bytes:
    """Replace `cut` bytes somewhere."""
    place %= len(content)
    return content[:place] + new + content[place + cut :]


MUTATION = st.tuples(st.integers(0, 10**6), st.binary(max_size=8), st.integers(0, 200))


@given(content=st.binary(max_size=400))
def test_any_bytes_as_a_state_or_a_manifest(content: bytes, folder: Path) -> None:
    (folder / "any").write_bytes(content)
    for read in (load_state, read_manifest, verify):
        with pytest.raises(RunFailed):
            read(folder / "any")


@given(document=JSON)
def test_any_document_as_a_manifest(document: object, folder: Path) -> None:
    (folder / "any.json").write_text(json.dumps(document))
    with pytest.raises(RunFailed):
        verify(folder / "any.json")


@given(mutation=MUTATION)
def test_a_changed_state_is_refused_or_found_by_its_checksum(
    mutation: tuple[int, bytes, int], valid: tuple[bytes, bytes], folder: Path
) -> None:
    content = mutate(valid[0], *mutation)
    (folder / "valid.safetensors").write_bytes(content)
    with suppress(RunFailed):
        load_state(folder / "valid.safetensors")
    if content != valid[0]:
        with pytest.raises(RunFailed):
            verify(folder / "valid.json")
    (folder / "valid.safetensors").write_bytes(valid[0])


@given(mutation=MUTATION)
def test_a_changed_manifest_is_refused_unless_it_says_the_same(
    mutation: tuple[int, bytes, int], valid: tuple[bytes, bytes], folder: Path
) -> None:
    (folder / "changed.json").write_bytes(mutate(valid[1], *mutation))
    try:
        files = read_manifest(folder / "changed.json")
    except RunFailed:
        return
    (folder / "same.json").write_bytes(valid[1])
    assert files == read_manifest(folder / "same.json")


@given(mutation=MUTATION)
def test_a_changed_shard_is_a_fault_or_an_image(mutation: tuple[int, bytes, int], folder: Path) -> None:
    shard = {
        "slots": torch.arange(2),
        "images": torch.zeros(2, 1, 2, 2, dtype=torch.uint8),
        "labels": torch.ones(2).long(),
    }
    save_state(folder / "shard-0000-of-0001-2.safetensors", shard)
    path = folder / "shard-0000-of-0001-2.safetensors"
    path.write_bytes(mutate(path.read_bytes(), *mutation))
    manifest = {"added": 2, "capacity": 2, "shape": [1, 2, 2], "shards": [path.name]}
    try:
        bank = open_bank(folder, manifest)
    except RunFailed:
        return
    assert bank.images.shape == (2, 1, 2, 2)
