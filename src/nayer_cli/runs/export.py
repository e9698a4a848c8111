"""The ONNX file of a quantized model: written, run, and compared with what was written."""

from pathlib import Path
from typing import Any

from torch import nn

from nayer_cli.classifiers.model import Classifier, Normalized
from nayer_cli.config import ExportConfig
from nayer_cli.onnx import packages
from nayer_cli.runs.run import Job


def export(job: Job, student: Classifier, model: nn.Module, settings: ExportConfig) -> dict[str, Any] | None:
    """Write `model.onnx` beside the student and run it; return the comparison, or None if no file is wanted.

    Args:
        job: the run.
        student: the deployed network.
        model: the same, mapping images in [0, 1] to logits on the job's device.
        settings: whether, and how.

    Raises:
        EnvironmentFault: the packages are missing, and the file was asked for.

    """
    if settings.onnx == "off":
        return None
    if settings.onnx == "on":
        packages.require()
    if missing := packages.missing():
        job.recorder.log.note(f"model.onnx is left out: {missing} is not installed ({packages.INSTALL})")
        return None
    return _written(job, student, model, settings)


def _written(job: Job, student: Classifier, model: nn.Module, settings: ExportConfig) -> dict[str, Any] | None:
    from nayer_cli.onnx.runner import OnnxNetwork, integer_share

    path, measure, group = job.recorder.folder.onnx, job.recorder.measure, job.engine.group
    problem = group.from_main(_write(student, path, settings.storage) if group.is_main else None)
    if problem:
        job.recorder.log.note(f"model.onnx is left out: {problem}", level="warning")
        return None
    runs = Normalized(OnnxNetwork(path), student.normalization).to(job.device)
    share, scores, same = integer_share(path), measure.student(runs), measure.compare(runs, model)
    return {
        "path": str(path),
        "bytes": path.stat().st_size,
        "storage": settings.storage,
        "scores": scores,
        "same": same,
        "agreement": same and same.rate,
        "convolutions": share.convolutions.total,
        "integer_convolutions": share.convolutions.integers,
        "products": share.products.total,
        "integer_products": share.products.integers,
        "float_layers": [*share.convolutions.floats, *share.products.floats],
    }


def _write(student: Classifier, path: Path, storage: str) -> str:
    """Write the file; return why that is impossible, or an empty text."""
    from nayer_cli.classifiers.onnx_file import write_classifier
    from nayer_cli.onnx.graph import Unwritable

    try:
        write_classifier(path, student, storage=storage)
    except Unwritable as error:
        return str(error)
    return ""
