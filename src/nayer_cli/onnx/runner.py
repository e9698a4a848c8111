"""Run ONNX files with ONNX Runtime on the processor, and report which parts run as integers."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nayer_cli.errors import EnvironmentFault, InputError
from nayer_cli.storage.text import printable
from nayer_cli.types import ImageShape

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
        path: a file such as `write_onnx` makes: one input, images, and one output, logits.
        threads: of the processor; None: as many as there are cores.

    Attributes:
        image_shape: of the images that it takes.
        batch: how many images it takes at a time; None: any number.
        classes: K.
        facts: the file's metadata.

    Raises:
        EnvironmentFault: the packages are not installed.
        InputError: the file is damaged, refers to other files, or does not map images to logits.

    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        super().__init__()
        self.path = path
        model = read_model(path)
        self.facts = _facts(model)
        self._session = _session(path, model, threads=threads)
        self._input, self.image_shape, self.classes = _signature(path, self._session)
        first = self._session.get_inputs()[0].shape[0]
        self.batch: int | None = first if isinstance(first, int) else None

    def forward(self, images: Tensor) -> Tensor:
        """Map normalized images `[B, C, H, W]` to logits `[B, K]`, on the device of the images.

        Raises:
            InputError: the file cannot do that.

        """
        array = images.detach().cpu().float().contiguous().numpy()
        try:
            logits = self._session.run(None, {self._input: array})[0]
        except Exception as error:  # the runtime's exceptions have no class in common
            raise _fault(self.path, error) from error
        return torch.from_numpy(logits).to(images.device)


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


def _share(model: object, compiled: object, kinds: tuple[str, ...], integer_kinds: tuple[str, ...]) -> Share:
    layers = _layers(model, (*kinds, *integer_kinds))
    integers = set(_layers(compiled, integer_kinds))
    return Share(len(layers), [name for name in layers if name not in integers])


def _layers(model: Any, kinds: tuple[str, ...]) -> list[str]:
    """Return the layers' names; the runtime appends something to the names of nodes."""
    return [printable(node.name.partition("/")[0]) for node in model.graph.node if node.op_type in kinds]


def read_model(path: Path) -> Any:
    """Return a file's content as onnx has it.

    Raises:
        EnvironmentFault: the package is not installed.
        InputError: the file is damaged, or refers to other files.

    """
    onnx = package("onnx")
    try:
        model = onnx.ModelProto.FromString(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except Exception as error:  # google.protobuf's, whose class depends on how it was built
        raise InputError(f"{path} is not an ONNX file, or damaged", hint=HINT) from error
    if not model.graph.node:  # any few bytes may be a message without content
        raise InputError(f"{path} is not an ONNX file: it has no operations", hint=HINT)
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(model, onnx.TensorProto)):
        raise InputError(f"{path} refers to other files for its weights, which nayer does not read", hint=HINT)
    return model


def _tensors(message: Any, kind: Any) -> Iterator[Any]:
    """Yield all tensors, wherever in the file they are."""
    for field, content in message.ListFields():
        if field.message_type is None:
            continue
        for part in content if isinstance(content, (list, tuple)) or hasattr(content, "extend") else [content]:
            if isinstance(part, kind):
                yield part
            else:
                yield from _tensors(part, kind)


def _facts(model: Any) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def _session(path: Path, model: Any, *, threads: int | None = None, optimized: Path | None = None) -> Any:
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


def _signature(path: Path, session: Any) -> tuple[str, ImageShape, int]:
    """Return the input's name, the shape of an image, and the number of classes."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) == len(outputs) == 1 and inputs[0].type == outputs[0].type == "tensor(float)":
        sizes = (*inputs[0].shape[1:], *outputs[0].shape[1:])
        if len(sizes) == 4 and all(isinstance(size, int) and size > 0 for size in sizes):
            return inputs[0].name, ImageShape(*sizes[:3]), sizes[3]
    raise InputError(f"{path} does not map images [batch, C, H, W] to logits [batch, K]", hint=HINT)


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
