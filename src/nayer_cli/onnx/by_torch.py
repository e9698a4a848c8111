"""PyTorch's own ONNX exporter, for float networks that our writer has no rules for."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from nayer_cli.errors import InputError
from nayer_cli.onnx.graph import INPUT, OPSET, OUTPUT
from nayer_cli.onnx.runner import package
from nayer_cli.storage import files
from nayer_cli.types import ImageShape

PACKAGE = "onnxscript"


def is_there() -> bool:
    """Say whether the exporter can run: it needs a package of its own."""
    return find_spec(PACKAGE) is not None


def write_by_torch(network: nn.Module, shape: ImageShape, path: Path, facts: Mapping[str, str]) -> None:
    """Write a file as `write_onnx` does of a float network; it has the exporter's names and operations.

    Args:
        network: maps images `[B, C, H, W]` to logits `[B, K]`; in evaluation mode, on the CPU.
        shape: of one image.
        path: the file.
        facts: goes into the file's metadata.

    Raises:
        InputError: the exporter cannot do it either.

    """
    try:
        with _quietly():
            program = torch.onnx.export(
                network,
                (torch.zeros(2, *shape),),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
            assert program is not None
            model = program.model_proto
    except Exception as error:  # it passes on what torch.export, its passes and onnxscript raise
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(
            f"PyTorch cannot export it either: {reason}",
            hint="write the part that it names with other operations, or choose another network",
        ) from error
    package("onnx").helper.set_model_props(model, dict(facts))
    files.write_bytes(path, model.SerializeToString(deterministic=True))


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep what the exporter says to itself: it prints, warns and logs."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
