import argparse
import os
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from nayer_cli.classifiers.fitting import load_weights
from nayer_cli.classifiers.weights import find_weights, read_weights, require_finite
from nayer_cli.errors import InputError

PLAIN = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
AVERAGED = {"weight": torch.full((2, 3), 5.0), "bias": torch.zeros(2)}


class Code:
    """Something that a pickle would have to import."""


class Attack:
    """Something that would run a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        {"state_dict": PLAIN, "epoch": 3, "args": argparse.Namespace(lr=0.1)},
        {"model": {f"module.{name}": value for name, value in PLAIN.items()}},
        {"net": {f"module._orig_mod.{name}": value for name, value in PLAIN.items()}, "acc": 91.2},
        {"state_dict": {f"_orig_mod.module.{name}": value for name, value in PLAIN.items()}},
        {"model": {"state_dict": PLAIN}, "ema": None, "optimizer": {"state": {}}},
        {"n_averaged": torch.tensor(3), **{f"module.{name}": value for name, value in PLAIN.items()}},
    ],
    ids=["plain", "state_dict", "ddp", "compiled", "both", "nested", "averaged-model"],
)
def test_wrappers_and_prefixes(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "x.pth")
    weights = read_weights(tmp_path / "x.pth")
    assert weights.keys() == PLAIN.keys()
    assert torch.equal(weights["weight"], PLAIN["weight"])


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema", "ema"])
def test_averaged_weights_go_before_plain_ones(tmp_path: Path, key: str) -> None:
    torch.save({"state_dict": PLAIN, "model": PLAIN, key: AVERAGED}, tmp_path / "x.pth")
    assert torch.equal(read_weights(tmp_path / "x.pth")["weight"], AVERAGED["weight"])


def test_safetensors(tmp_path: Path) -> None:
    save_file(PLAIN, tmp_path / "x.safetensors")
    assert torch.equal(read_weights(tmp_path / "x.safetensors")["weight"], PLAIN["weight"])


def test_pickled_code_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": PLAIN, "config": Code()}, tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"holds pickled code \(.*test_weights.Code\)") as fault:
        read_weights(tmp_path / "x.pth")
    assert "safetensors" in str(fault.value.hint)


def test_pickled_code_is_not_executed(tmp_path: Path) -> None:
    torch.save({"state_dict": PLAIN, "config": Attack(f"touch {tmp_path / 'proof'}")}, tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"pickled code \((posix|nt).system\)"):
        read_weights(tmp_path / "x.pth")
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
@pytest.mark.parametrize("content", [b"", b"version https://git-lfs", b"PK\x03\x04 cut off"])
def test_damaged_files(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        read_weights(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"), [({"epoch": 3}, "only: epoch"), ([1, 2], "a list"), (torch.zeros(2), "a Tensor")]
)
def test_files_without_weights(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(InputError, match=message):
        read_weights(tmp_path / "x.pt")


def test_a_missing_file_and_a_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no weight file"):
        read_weights(tmp_path / "x.pt")
    with pytest.raises(InputError, match="holds no weights"):
        find_weights(tmp_path)


def test_misfits_are_listed(tmp_path: Path) -> None:
    weights = {"weight": torch.ones(4, 3), **{f"x{index}": torch.ones(1) for index in range(5)}}
    with pytest.raises(InputError) as fault:
        load_weights(nn.Linear(3, 2), weights, name="net", path=tmp_path / "x.pt")
    for part in ("1 missing (bias)", "5 unexpected (x0, x1, x2, …)", "weight is [4, 3] instead of [2, 3]", "x.pt"):
        assert part in str(fault.value)


def test_half_precision_and_old_batch_norms_are_loaded(tmp_path: Path) -> None:
    source, network = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
    nn.init.constant_(source.weight, 1.5)
    old = {name: value.half() for name, value in source.state_dict().items() if name != "num_batches_tracked"}
    load_weights(network, old, name="net", path=tmp_path / "x.pt")
    assert network.weight.dtype is torch.float32
    assert network.weight.tolist() == [1.5, 1.5]


@pytest.mark.parametrize("kind", [torch.int8, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_weights_of_another_type_are_refused(kind: torch.dtype, tmp_path: Path) -> None:
    weights = {"weight": torch.ones(2, 3).to(kind), "bias": torch.zeros(2)}
    with pytest.raises(InputError, match=rf"1 of another type \(weight is {str(kind)[6:]} instead of float32\)"):
        load_weights(nn.Linear(3, 2), weights, name="net", path=tmp_path / "x.pt")


def test_old_files_without_an_archive_are_read(tmp_path: Path) -> None:
    torch.save({"state_dict": PLAIN}, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(read_weights(tmp_path / "x.pth")["weight"], PLAIN["weight"])


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    torch.save(PLAIN, tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.pth") as old, zipfile.ZipFile(tmp_path / "y.pth", "w", zipfile.ZIP_LZMA) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(InputError, match=r"not an archive that torch.save made: 'x/data.pkl' is compressed"):
        read_weights(tmp_path / "y.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float) -> None:
    network = nn.BatchNorm2d(2)
    require_finite(network, "x.pt")
    network.running_var.fill_(value)  # type: ignore[union-attr]
    with pytest.raises(InputError, match=r"running_var of x.pt is not finite"):
        require_finite(network, "x.pt")
