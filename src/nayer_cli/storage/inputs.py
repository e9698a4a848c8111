"""Check that the files a user names exist: every command does it first, and again when it reads them."""

from pathlib import Path

from nayer_cli import plugins
from nayer_cli.errors import InputError, did_you_mean
from nayer_cli.storage.text import printable, user_path

RUNS = Path("runs")
"""The folder of runs that have no `--out`."""
OF_LIBRARIES = ("timm:", "torch/", "hfds/", "hfids/", "tfds/", "wds/")
"""Prefixes of data that timm's factory opens."""


def require_weights(path: str | Path) -> None:
    """Raise InputError if there is no such weight file."""
    if not user_path(path).is_file():
        raise InputError(f"there is no weight file {path}", hint="check the path: it is relative to the current folder")


def require_onnx(path: str | Path) -> None:
    """Raise InputError if there is no such ONNX file."""
    if not user_path(path).is_file():
        raise InputError(f"there is no ONNX file {path}", hint="nayer export MODEL --out FILE.onnx writes one")


def require_pool(path: str | Path) -> None:
    """Raise InputError if there is no such LTE pool."""
    if not user_path(path).is_file():
        raise InputError(f"there is no LTE pool {path}", hint="make one with nayer embed")


def require_run(path: str | Path) -> None:
    """Raise InputError if there is no such run directory."""
    if not (Path(path) / "config.toml").is_file():
        raise InputError(f"{path} is not a run directory: it has no config.toml", hint="name a folder such as runs/…")


def require_finished_run() -> None:
    """Raise InputError if no run in the usual place has ended."""
    if not any(RUNS.glob("*/result.json")):
        raise no_finished_run()


def no_finished_run() -> InputError:
    """Return what to tell where the newest run would be taken, and there is none."""
    return InputError(
        f"no model is named, and there is no finished run of nayer distill under {RUNS}/",
        hint="name one: nayer quantize --model MODEL --labels FILE, or run nayer distill first",
    )


def require_onnx_name(model: str | None, out: str | None) -> None:
    """Raise InputError if no model is named, or no file that an ONNX model can have."""
    if not model:
        raise InputError("no model is given", hint="for example: nayer export resnet18 --out resnet18.onnx")
    if not out or Path(out).suffix != ".onnx":
        raise InputError(
            f"--out must name a file that ends in .onnx, not {out or 'nothing'}",
            hint=f"for example: nayer export {model} --out {Path(out or 'model').stem}.onnx",
        )


def require_names(spec: str) -> None:
    """Raise InputError if `spec` is neither a known set of class names nor a file."""
    known = plugins.names("datasets")
    if spec.partition(":")[0] not in known and not user_path(spec).exists():
        raise InputError(
            f"'{printable(spec)}' is neither a file nor a known set of class names{did_you_mean(spec, known)}",
            hint=f"give a text file with one name a line, or one of: {', '.join(known)}",
        )


def require_data(spec: str) -> None:
    """Raise InputError if images cannot be called `spec`, as far as that goes without numpy and Pillow."""
    is_known = spec in plugins.names("datasets") or spec.lower().startswith(OF_LIBRARIES)
    if not (is_known or user_path(spec).exists() or plugins.installed("sources")):
        raise no_data(spec)


def no_data(spec: str) -> InputError:
    """Return the error for `spec`, which names no images."""
    return InputError(
        f"there is no data '{spec}'{did_you_mean(spec, plugins.names('datasets'))}",
        hint="give an image folder, a .tar or .tar.gz of one, an .npz, a built-in set, or torch/NAME@ROOT",
    )
