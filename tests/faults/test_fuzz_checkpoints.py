"""Whatever is in a file of a checkpoint, reading it ends with a state or with a fault that says so."""

import json
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import save

from nayer_cli.bank import MemoryBank
from nayer_cli.errors import RunFailed
from nayer_cli.runs.shards import open_bank
from nayer_cli.storage.checkpoint import FORMAT, load_state, read_manifest, save_state, seal, verify, write_manifest

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
JSON_SCALARS = st.none() | st.booleans() | st.integers() | FLOATS | st.text(max_size=8)
JSON = st.recursive(
    JSON_SCALARS,
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


MARKS = [{"tensor": name, "channels_last": last} for name in ("t0", "t1", [], None) for last in (True, False, "x")]
SKELETON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.sampled_from(MARKS),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.fixed_dictionaries({"dict": st.lists(st.tuples(inner, inner), max_size=3)})
        | st.dictionaries(st.text(max_size=4) | st.sampled_from(["dict", "tensor"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(skeleton=SKELETON, shape=st.lists(st.integers(0, 2), max_size=4))
@example(skeleton={"tensor": "t0", "channels_last": True}, shape=[2])
@example(skeleton={"tensor": "absent", "channels_last": False}, shape=[])
def test_any_tree_in_a_sound_file(skeleton: object, shape: list[int], folder: Path) -> None:
    metadata = {"format": FORMAT, "state": json.dumps(skeleton)}
    (folder / "tree").write_bytes(save({"t0": torch.zeros(shape)}, metadata))
    with suppress(RunFailed):
        load_state(folder / "tree")


ENTRY = st.none() | st.text(max_size=4) | st.fixed_dictionaries({"bytes": JSON, "sha256": JSON})
NAMES = st.text(max_size=8) | st.sampled_from(["../x", "/etc/passwd", "a/../../x", "\0", "x" * 300, "é", "."])


@given(files=st.dictionaries(NAMES, ENTRY, max_size=3) | JSON)
@example(files={"valid.safetensors": {"bytes": "x", "sha256": "y"}})
@example(files={"x" * 300: {"bytes": 1, "sha256": "y"}})
def test_any_files_in_a_sound_manifest(files: object, folder: Path) -> None:
    digest = sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    (folder / "sound.json").write_text(json.dumps({"format": FORMAT, "files": files, "sha256": digest}))
    if files != {}:
        with pytest.raises(RunFailed):
            verify(folder / "sound.json")


SHARD = {
    "slots": torch.arange(2),
    "images": torch.zeros(2, 1, 2, 2, dtype=torch.uint8),
    "labels": torch.ones(2, dtype=torch.long),
}
TYPES = [torch.uint8, torch.int64, torch.float32, torch.bool]
TENSORS = st.builds(
    lambda shape, dtype, value: torch.full(shape, value).to(dtype),
    st.lists(st.integers(0, 3), max_size=4),
    st.sampled_from(TYPES),
    st.integers(-3, 40),
)
PARTS = st.fixed_dictionaries({name: st.just(part) | TENSORS | JSON_SCALARS for name, part in SHARD.items()})


def opened(path: Path) -> MemoryBank | None:
    """The bank of one shard, or None where that is refused."""
    manifest = {"added": 2, "capacity": 2, "shapes": {"images": [1, 2, 2]}, "shards": [path.name]}
    with suppress(RunFailed):
        return open_bank(path.parent, manifest)
    return None


@given(content=PARTS | st.dictionaries(st.sampled_from(sorted(SHARD)), TENSORS) | JSON_SCALARS)
@example(content=SHARD | {"slots": torch.tensor([0, 2])})
@example(content=SHARD | {"slots": torch.tensor([0, -1])})
@example(content=SHARD | {"images": torch.zeros(1, 2, 2, dtype=torch.uint8)})
@example(content=SHARD | {"labels": None})
def test_any_content_of_a_sound_shard(content: object, folder: Path) -> None:
    save_state(folder / "shard", content)
    bank = opened(folder / "shard")
    assert bank is None or bank.images.shape == (2, 1, 2, 2)


@given(mutation=MUTATION)
def test_a_changed_shard_is_a_fault_or_an_image(mutation: tuple[int, bytes, int], folder: Path) -> None:
    save_state(folder / "changed", SHARD)
    (folder / "changed").write_bytes(mutate((folder / "changed").read_bytes(), *mutation))
    bank = opened(folder / "changed")
    assert bank is None or bank.images.shape == (2, 1, 2, 2)
