from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from nayer_cli.storage.safetensors_header import check_header
from nayer_cli.storage.tensors import CODES, save_tensors


def example() -> dict[str, torch.Tensor]:
    wide = torch.rand(4, 6)
    made = {str(dtype): torch.tensor([[0, 1], [1, 0]]).to(dtype) for dtype in CODES}
    images = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
    return {
        **made,
        "a part": wide[1:, ::2],
        "turned": wide.t(),
        "same": wide,
        "nothing": wide[:0],
        "number": wide[0, 0],
        "images": images,
    }


def test_the_library_reads_what_we_write(tmp_path: Path):
    tensors, path = example(), tmp_path / "some.safetensors"
    save_tensors(path, tensors, {"b": "ü", "a": "1"})
    check_header(path)
    found = load_file(path)
    assert set(found) == set(tensors)
    assert all(
        found[name].dtype == tensor.dtype and torch.equal(found[name], tensor) for name, tensor in tensors.items()
    )
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"b": "ü", "a": "1"}


def test_our_files_are_as_long_as_the_library_s(tmp_path: Path):
    tensors = {name: tensor.clone().contiguous() for name, tensor in example().items()}
    save_tensors(tmp_path / "some", tensors, {})
    theirs = save(tensors)
    ours = (tmp_path / "some").read_bytes()
    assert len(ours) - int.from_bytes(ours[:8], "little") == len(theirs) - int.from_bytes(theirs[:8], "little")


def test_no_more_than_one_tensor_is_copied_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    held = []
    monkeypatch.setattr("nayer_cli.storage.tensors.write_atomically", lambda path, parts, size: held.extend(parts))
    whole = torch.zeros(1000)
    save_tensors(tmp_path / "some", {"a": whole, "b": whole}, {})
    whole += 1
    assert torch.equal(torch.frombuffer(bytearray(held[1]), dtype=torch.float32), whole)  # a view, not a copy


def test_a_type_that_the_format_lacks_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"'x' is of torch\.complex128"):
        save_tensors(tmp_path / "some", {"x": torch.zeros(1, dtype=torch.complex128)}, {})
    assert list(tmp_path.iterdir()) == []
