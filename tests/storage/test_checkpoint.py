from pathlib import Path

import pytest
import torch

from nayer_cli.errors import RunFailed
from nayer_cli.storage.checkpoint import (
    Seal,
    digest,
    fingerprint,
    load_state,
    read_manifest,
    save_state,
    seal,
    verify,
    write_manifest,
)


def test_a_nested_state_comes_back_equal(tmp_path: Path):
    shared = torch.rand(3)
    state = {
        "a": {0: {"step": torch.tensor(3.0), "buffer": None}, 1: {}},
        "b": [1, 2.5, "x", True, shared, shared.t()],
        "channels_last": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
    }
    save_state(tmp_path / "s.safetensors", state)
    loaded = load_state(tmp_path / "s.safetensors")
    assert loaded["a"][0]["buffer"] is None and set(loaded["a"]) == {0, 1}
    assert loaded["b"][:4] == [1, 2.5, "x", True]
    assert torch.equal(loaded["b"][5], shared)
    assert torch.equal(loaded["channels_last"], state["channels_last"])
    assert loaded["channels_last"].stride() == state["channels_last"].stride()


def test_momentum_fits_weights_in_channels_last(tmp_path: Path):
    def step(weight: torch.nn.Parameter, optimizer: torch.optim.Optimizer) -> torch.Tensor:
        optimizer.zero_grad()
        (weight * ramp).sum().backward()
        optimizer.step()
        return weight.detach().clone()

    ramp = torch.arange(2 * 3 * 3 * 3.0).view(2, 3, 3, 3)
    weight = torch.nn.Parameter(torch.zeros(2, 3, 3, 3).to(memory_format=torch.channels_last))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, fused=True)
    step(weight, optimizer)
    save_state(tmp_path / "s", {"weight": weight, "optimizer": optimizer.state_dict()})
    state = load_state(tmp_path / "s")
    again = torch.nn.Parameter(state["weight"])
    resumed = torch.optim.SGD([again], lr=0.1, momentum=0.9, fused=True)
    resumed.load_state_dict(state["optimizer"])
    assert torch.equal(step(again, resumed), step(weight, optimizer))


def test_an_optimizer_continues_from_it_bit_for_bit(tmp_path: Path):
    def run(steps: int, state: Path | None = None) -> torch.Tensor:
        weight = torch.nn.Parameter(torch.ones(4))
        optimizer = torch.optim.Adam([weight], lr=0.1)
        start = 0
        if state:
            saved = load_state(state)
            weight.data.copy_(saved["weight"])
            optimizer.load_state_dict(saved["optimizer"])
            start = 3
        for step in range(start, steps):
            weight.grad = torch.full((4,), float(step + 1))
            optimizer.step()
        if state is None and steps == 3:
            save_state(tmp_path / "s", {"weight": weight, "optimizer": optimizer.state_dict()})
        return weight.detach()

    run(3)
    assert torch.equal(run(6, tmp_path / "s"), run(6))


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\xff" * 100, b"PK\x03\x04"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "s").write_bytes(content)
    with pytest.raises(RunFailed, match="cannot read checkpoint"):
        load_state(tmp_path / "s")


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path):
    save_state(tmp_path / "s", {"x": 1})
    with pytest.raises(ValueError):
        save_state(tmp_path / "s", {"x": float("nan")})
    assert load_state(tmp_path / "s") == {"x": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def sealed(folder: Path, content: bytes = b"abc") -> Path:
    """Write a file and a manifest that seals it; return the manifest."""
    (folder / "x").write_bytes(content)
    write_manifest(folder / "manifest.json", {"x": seal(folder / "x")})
    return folder / "manifest.json"


def test_a_seal_is_the_size_and_the_sha256_of_a_file(tmp_path: Path):
    manifest = sealed(tmp_path)
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    assert read_manifest(manifest) == {"x": Seal(3, known)}
    verify(manifest)


@pytest.mark.parametrize("content, fault", [(b"abd", "checksum does not match"), (b"ab", "has 2 bytes instead of 3")])
def test_a_file_that_is_not_as_it_was_written_is_refused(tmp_path: Path, content: bytes, fault: str):
    manifest = sealed(tmp_path)
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(RunFailed, match=fault):
        verify(manifest)


def test_a_manifest_that_was_changed_is_refused(tmp_path: Path):
    manifest = sealed(tmp_path)
    manifest.write_text(manifest.read_text().replace('"x"', '"y"'))
    with pytest.raises(RunFailed, match=r"manifest\.json is damaged: its checksum does not match"):
        read_manifest(manifest)


def test_a_fingerprint_follows_every_number_and_every_name():
    one = {"a": [1, torch.tensor([1.0, 2.0])], "b": torch.tensor(3)}
    assert fingerprint(one) == fingerprint({"a": [1, torch.tensor([1.0, 2.0])], "b": torch.tensor(3)})
    others = [
        {"a": [2, torch.tensor([1.0, 2.0])], "b": torch.tensor(3)},
        {"a": [1, torch.tensor([1.0, 2.5])], "b": torch.tensor(3)},
        {"a": [1, torch.tensor([1.0, 2.0])], "b": torch.tensor(4)},
        {"a": [1, torch.tensor([1.0, 2.0])], "c": torch.tensor(3)},
    ]
    assert len({fingerprint(content) for content in [one, *others]}) == 5


def test_a_digest_does_not_depend_on_the_layout_of_memory():
    tensors = {
        "a": torch.rand(2, 3, 4, 4),
        "b": torch.rand(2, 1, 3, 3),
        "c": torch.rand(4, 4, 1, 1),
        "d": torch.rand(3),
    }
    moved = {name: x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x for name, x in tensors.items()}
    assert digest(tensors) == digest(moved)
