"""Run ONNX files with ONNX Runtime on the processor, and report which parts run as integers."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nayer_cli.errors import EnvironmentFault, InputError
from nayer_cli.onnx.signature import read_signature
from nayer_cli.storage.text import printable

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

Array = NDArray[Any]
Kinds = tuple[str, ...]

PROVIDERS = ["CPUExecutionProvider"]
HINT = "write the file again with nayer export or nayer quantize"
SILENT = 4
"""Level of the runtime's own messages; faults are exceptions."""
CONVOLUTIONS, PRODUCTS = ("Conv",), ("Gemm", "MatMul")
INTEGER_CONVOLUTIONS = ("QLinearConv", "ConvInteger")
INTEGER_PRODUCTS = ("QGemm", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat")


class OnnxNetwork(nn.Module):
    """An ONNX file as a network that runs on the processor, and always does the same.

    Args:
        path: a file such as `write_onnx` makes, or one of others: one input, images, and one output, logits.
        threads: of the processor; None: as many as there are cores.
        side: of images in pixels, where the file does not fix it.
        channels: likewise.

    Attributes:
        image_shape: of the images that it takes.
        batch: how many images it takes at a time; None: any number.
        classes: K; None where the file does not fix it.
        facts: the file's metadata.
        takes_bytes: whether it takes whole numbers of 0 to 255, and normalizes itself.

    Raises:
        EnvironmentFault: the packages are not installed.
        InputError: the file is damaged, refers to files elsewhere, or does not map images to logits.

    """

    def __init__(
        self, path: Path, threads: int | None = None, *, side: int | None = None, channels: int | None = None
    ) -> None:
        super().__init__()
        self.path = path
        model = read_model(path)
        self.facts = _facts(model)
        self._session = _session(path, model, threads=threads)
        self._signature = read_signature(path, self._session, side, channels)
        self.image_shape, self.classes = self._signature.shape, self._signature.classes
        self.batch, self.takes_bytes = self._signature.batch, self._signature.dtype is np.uint8

    def forward(self, images: Tensor) -> Tensor:
        """Map normalized images `[B, C, H, W]` to logits `[B, K]`, on the device of the images.

        Where the file normalizes itself they are in [0, 1]. One that takes a fixed number of them gets a few twice.

        Raises:
            InputError: the file cannot do that.

        """
        count = len(images)
        batch = self.batch or count
        given = self._array(images)
        rows = [self._run(_padded(given[start : start + batch], batch)) for start in range(0, count, batch)]
        logits = np.concatenate(rows)[:count] if len(rows) != 1 else rows[0][:count]
        return torch.from_numpy(logits.reshape(count, -1).astype(np.float32, copy=False)).to(images.device)

    def _array(self, images: Tensor) -> Array:
        """Return images in the layout and the type that the file takes."""
        values = images.detach().cpu().float()
        values = (values * 255).round().clamp(0, 255) if self.takes_bytes else values
        axes = values.permute(0, 2, 3, 1) if self._signature.channels_last else values
        return axes.contiguous().numpy().astype(self._signature.dtype, copy=False)

    def _run(self, array: Array) -> Array:
        try:
            logits: Array = self._session.run([self._signature.output], {self._signature.input: array})[0]
        except Exception as error:  # the runtime's exceptions have no class in common
            raise _fault(self.path, error) from error
        return logits


def _padded(array: Array, batch: int) -> Array:
    """Repeat the last image until there are `batch` of them."""
    return np.concatenate([array, np.repeat(array[-1:], batch - len(array), axis=0)]) if len(array) < batch else array


class Share(NamedTuple):
    """The share of layers that run as integers."""

    total: int
    floats: list[str]
    """The names of those that do not."""

    @property
    def integers(self) -> int:
        """The number that do."""
        return self.total - len(self.floats)


class IntegerShare(NamedTuple):
    """The layers of a file, by kind."""

    convolutions: Share
    products: Share
    """Linear layers, and the products of matrices in attention."""


def read_facts(path: Path) -> dict[str, str]:
    """Return the metadata of a file.

    Raises:
        EnvironmentFault: the package is not installed.
        InputError: the file is damaged, or refers to other files.

    """
    return _facts(read_model(path))


def integer_share(path: Path) -> IntegerShare:
    """Say which layers of a file that `write_onnx` made ONNX Runtime computes with integers on this machine.

    Raises:
        EnvironmentFault: the packages are not installed.
        InputError: the file is damaged, or refers to other files.

    """
    model = read_model(path)
    with TemporaryDirectory() as folder:
        optimized = Path(folder, "optimized.onnx")
        _session(path, model, optimized=optimized)
        compiled = read_model(optimized)
    return IntegerShare(
        _share(model, compiled, CONVOLUTIONS, INTEGER_CONVOLUTIONS),
        _share(model, compiled, PRODUCTS, INTEGER_PRODUCTS),
    )


def _share(model: "ModelProto", compiled: "ModelProto", kinds: Kinds, integer_kinds: Kinds) -> Share:
    layers = _layers(model, (*kinds, *integer_kinds))
    integers = set(_layers(compiled, integer_kinds))
    return Share(len(layers), [name for name in layers if name not in integers])


def _layers(model: "ModelProto", kinds: Kinds) -> list[str]:
    """Return the layers' names; the runtime appends something to the names of nodes."""
    return [printable(node.name.partition("/")[0]) for node in model.graph.node if node.op_type in kinds]


def read_model(path: Path) -> "ModelProto":
    """Return a file's content as onnx has it.

    Raises:
        EnvironmentFault: the package is not installed.
        InputError: the file is damaged, or refers to other files.

    """
    onnx = package("onnx")
    try:
        model: ModelProto = onnx.ModelProto.FromString(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", hint="check its name, and who may read it") from error
    except Exception as error:  # google.protobuf's, whose class depends on how it was built
        raise InputError(f"{path} is not an ONNX file, or damaged", hint=HINT) from error
    if not model.graph.node:  # any few bytes may be a message without content
        raise InputError(f"{path} is not an ONNX file: it has no operations", hint=HINT)
    _bring_weights(model, path, onnx)
    return model


def _bring_weights(model: "ModelProto", path: Path, onnx: Any) -> None:
    """Read weights that lie beside the file, as PyTorch writes them; what names another place is refused."""
    kind = onnx.TensorProto
    outside = [tensor for tensor in _tensors(model, kind) if tensor.data_location == kind.EXTERNAL]
    for tensor in outside:
        name = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        file = path.parent / name
        is_beside = name not in ("", ".", "..") and not set(name) & {"/", "\\", ":", "\0"}
        if not is_beside or file.is_symlink() or not file.is_file():
            raise InputError(
                f"{path} refers to other files for its weights, but '{printable(name)}' is not a file beside it",
                hint=HINT,
            )
        try:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
        except Exception as error:  # offsets and sizes are whatever a file says
            raise InputError(
                f"cannot read the weights of {path} in {file}: {printable(str(error))}", hint=HINT
            ) from error
        tensor.data_location = kind.DEFAULT
        del tensor.external_data[:]


def _tensors(message: Any, kind: "type[TensorProto]") -> "Iterator[TensorProto]":
    """Yield all tensors, wherever in the file they are."""
    for field, content in message.ListFields():
        if field.message_type is None:
            continue
        for part in content if isinstance(content, (list, tuple)) or hasattr(content, "extend") else [content]:
            if isinstance(part, kind):
                yield part
            else:
                yield from _tensors(part, kind)


def _facts(model: "ModelProto") -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def _session(path: Path, model: "ModelProto", *, threads: int | None = None, optimized: Path | None = None) -> Any:
    """Load a model into the runtime."""
    runtime = package("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = SILENT
    options.use_deterministic_compute = True
    options.intra_op_num_threads = threads or 0
    # Threads that wait for more work would take the processor from whatever comes next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    try:
        return runtime.InferenceSession(model.SerializeToString(), options, providers=PROVIDERS)
    except Exception as error:  # the runtime's exceptions have no class in common
        raise _fault(path, error) from error


def _fault(path: Path, error: Exception) -> InputError:
    first = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return InputError(f"ONNX Runtime cannot run {path}: {printable(first)}", hint=HINT)


def package(name: str) -> Any:
    """Import a package of the extra `onnx`.

    Raises:
        EnvironmentFault: it is not installed.

    """
    try:
        return import_module(name)
    except ImportError as error:
        raise EnvironmentFault(
            f"the package '{name}' is not installed", hint="pip install 'nayer-cli[onnx]'"
        ) from error
