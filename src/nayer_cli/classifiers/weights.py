"""Weight files: safetensors, or torch checkpoints that hold no code. Pickled code is never executed.

What a file declares is compared with its length before room is made for it.
"""

import argparse
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nayer_cli.errors import InputError
from nayer_cli.storage.inputs import require_weights
from nayer_cli.storage.safetensors_header import check_header
from nayer_cli.storage.text import printable

Weights = dict[str, Tensor]

FILE_NAMES = ("model.safetensors", "pytorch_model.bin")
"""timm's names for the weight file in a folder, best first."""
WRAPPERS = ("state_dict_ema", "model_ema", "ema", "state_dict", "model", "net", "module")
"""Keys under which training scripts keep the weights, best first: averaged weights are what they report."""
DEEPEST = 10
"""Wrappers around wrappers; a hostile checkpoint may hold itself."""
PREFIXES = ("module.", "_orig_mod.")
"""Prefixes that DistributedDataParallel and torch.compile put before every name."""
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Types that mean what they say; smaller ones are quantized, and need a scale."""
MENTIONED = 3
PICKLE = 4 * 2**20
"""Bytes of a pickle that are looked through for what it holds."""
BESIDE = (
    "numpy.core.multiarray.scalar", "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar", "numpy._core.multiarray._reconstruct",
    "numpy.ndarray", "numpy.dtype", "numpy.float64", "numpy.float32", "numpy.int64", "numpy.bool",
    "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib.PurePosixPath",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
)  # fmt: skip
"""Types that training scripts save beside the weights: numbers and arrays of NumPy, paths, options."""
COUNTER = "num_batches_tracked"
"""The buffer of BatchNorm that older checkpoints lack, and that evaluation does not use."""
NO_CODE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
"""The variable that makes torch.load refuse pickled code, no matter what its caller asks for."""


class Inert:
    """Stands for an object that is saved with the weights: it takes any content, and does nothing with it."""

    def __init__(self, *arguments: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass


def find_weights(folder: Path) -> Path:
    """Return the weight file of a model folder in timm's layout.

    Raises:
        InputError: there is none.

    """
    for name in FILE_NAMES:
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"{folder} holds no weights: there is no {' or '.join(FILE_NAMES)}",
        hint="name a folder saved by timm or nayer, or a weight file",
    )


def read_weights(path: Path) -> Weights:
    """Return the tensors of a weight file by name, without wrappers and prefixes.

    Of a checkpoint with both plain and averaged (EMA) weights the averaged ones are taken, as timm does.

    Raises:
        InputError: the file is missing or damaged, would have to run code, holds no weights, or tensors that
            are larger than the file.

    """
    require_weights(path)
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_checkpoint(path)
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds a {type(content).__name__}, not weights by name", hint=_resave(path))
    found = _unwrap(content)
    weights = {_strip(name): value for name, value in _named(found).items() if isinstance(value, Tensor)}
    weights.pop("n_averaged", None)  # the counter of torch.optim.swa_utils
    if not weights:
        raise InputError(f"{path} holds no weights, only: {some_of(list(_named(content)))}", hint=_resave(path))
    for name, value in weights.items():
        _check_tensor(name, value, path)
    return weights


@contextmanager
def refusing_code() -> Iterator[None]:
    """Let other libraries read no pickled code within the block: some releases of timm allow it by default."""
    before = os.environ.get(NO_CODE)
    os.environ[NO_CODE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[NO_CODE]
        else:
            os.environ[NO_CODE] = before


def require_finite(network: nn.Module, where: str) -> None:
    """Make sure that `network` holds no NaN and no infinity.

    Raises:
        InputError: it does.

    """
    for name, value in network.state_dict().items():
        if isinstance(value, Tensor) and value.is_floating_point() and not value.isfinite().all():
            raise InputError(
                f"weight {name} of {where} is not finite (NaN or infinity)",
                hint="its training diverged: name an earlier checkpoint",
            )


def _read_safetensors(path: Path) -> Weights:
    try:
        check_header(path)
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path} is not a valid safetensors file: {error}", hint="copy or download it again"
        ) from error


def _read_checkpoint(path: Path) -> Any:
    is_archive = zipfile.is_zipfile(path)
    try:
        if is_archive:
            _check_archive(path)
        # timm's training script pickles its options beside the weights; a Namespace is mere data. No code of NumPy
        # or of others runs: what stands for theirs is inert.
        known: list[Any] = [argparse.Namespace, *((Inert, name) for name in BESIDE)]
        with torch.serialization.safe_globals(known), warnings.catch_warnings(action="ignore"):
            # Mapped, a tensor can be no larger than the file, whatever it declares.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if code:
            raise _holds_code(path, code[1]) from error
        message = f"{path} is neither a safetensors file nor a torch checkpoint"
        raise InputError(message, hint=_resave(path)) from error
    except InputError:
        raise
    except Exception as error:  # damaged pickles bring about whatever their instructions run into
        reason = printable(str(error).partition("\n")[0]) or type(error).__name__
        raise InputError(f"{path} cannot be read as a torch checkpoint: {reason}", hint=_resave(path)) from error


def _holds_code(path: Path, code: str) -> InputError:
    """Say that a checkpoint would run `code`, and how to get the weights out of it."""
    head = _start_of_pickle(path)
    if b"_modules" in head and b"_parameters" in head:
        return InputError(
            f"{path} is a whole pickled network: it holds pickled code ({code}), which nayer never executes",
            hint="if you trust the file, save its weights alone, and name the network as py:package.module:factory: "
            + _torch(f"torch.load('{path}', weights_only=False)", path),
        )
    return InputError(f"{path} holds pickled code ({code}), which nayer never executes", hint=_resave(path))


def _start_of_pickle(path: Path) -> bytes:
    """Return the start of the pickle that `torch.save` wrote, in an archive or, long ago, as the file."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            return file.read(PICKLE)
    with zipfile.ZipFile(path) as archive:
        name = next((name for name in archive.namelist() if name.endswith("data.pkl")), None)
        return archive.open(name).read(PICKLE) if name else b""


def _torch(opened: str, path: Path) -> str:
    return f"torch.save({opened}.state_dict(), '{path.stem}-weights.pth')"


def _check_archive(path: Path) -> None:
    """Make sure that a zip archive holds weights, and declares no more bytes than it has, as `torch.save` makes it.

    Raises:
        InputError: it is a program of TorchScript or of torch.export, or damaged.

    """
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
    names = {record.filename.partition("/")[2] for record in records}
    if any(name.startswith("code/") for name in names) or "constants.pkl" in names:
        raise InputError(
            f"{path} is a TorchScript program, not weights by name",
            hint="if you trust it, save its weights alone, and name the network that they belong to: "
            + _torch(f"torch.jit.load('{path}')", path),
        )
    if any("exported_program" in name or name.startswith("models/") for name in names):
        raise InputError(
            f"{path} is a program of torch.export, not weights by name",
            hint="if you trust it, save its weights alone, and name the network that they belong to: "
            + f"torch.save(torch.export.load('{path}').state_dict, '{path.stem}-weights.pth')",
        )
    packed = next((record for record in records if record.compress_type != zipfile.ZIP_STORED), None)
    declared, size = sum(record.file_size for record in records), path.stat().st_size
    if packed or declared > size:
        what = f"'{printable(packed.filename)}' is compressed" if packed else f"its {size:,} bytes declare {declared:,}"
        raise InputError(f"{path} is not an archive that torch.save made: {what}", hint=_resave(path))


def _check_tensor(name: str, value: Tensor, path: Path) -> None:
    """Make sure that a tensor is a plain one, and has its data in the file."""
    who = f"{path}: tensor '{printable(name)}'"
    if value.layout is not torch.strided or value.is_quantized or value.is_meta:
        kind = "without data" if value.is_meta else "quantized" if value.is_quantized else "sparse"
        raise InputError(f"{who} is {kind}, not a plain tensor", hint=_resave(path))
    declared, size = value.numel() * value.element_size(), path.stat().st_size
    if declared > size:  # such as one element that is repeated
        raise InputError(f"{who} declares {declared:,} bytes, but the file has {size:,}", hint=_resave(path))


def _named(content: Mapping[Any, Any]) -> dict[str, Any]:
    """Leave out what a hostile file may use as keys: writing out nested tuples can take for ever."""
    return {name: value for name, value in content.items() if isinstance(name, str)}


def _unwrap(content: Mapping[Any, Any]) -> Mapping[Any, Any]:
    for _ in range(DEEPEST):
        candidates = (content.get(key) for key in WRAPPERS)
        inner = next((inner for inner in candidates if isinstance(inner, Mapping) and inner), None)
        if inner is None:
            break
        content = inner
    return content


def _strip(name: str) -> str:
    while name.startswith(PREFIXES):
        name = name.partition(".")[2]
    return name


def some_of(words: list[str]) -> str:
    """Name the first of several things in a message."""
    return ", ".join(map(printable, words[:MENTIONED])) + (", …" if len(words) > MENTIONED else "")


def _resave(path: Path) -> str:
    return (
        "if you trust the file, save its weights alone: "
        f"safetensors.torch.save_file(model.state_dict(), '{path.stem}.safetensors')"
    )
