"""Reuse of an earlier run by `nayer quantize`: its student, images, LTE pool and generator."""

from pathlib import Path
from typing import Any

from torch import Tensor

from nayer_cli import plugins
from nayer_cli.config import DEFAULT_METHOD
from nayer_cli.engine import Engine
from nayer_cli.errors import InputError
from nayer_cli.live_settings import LIFE
from nayer_cli.method import Method
from nayer_cli.plugin_settings import config_class
from nayer_cli.runs import words
from nayer_cli.runs.folder import RUNS, RunFolder
from nayer_cli.runs.ownership import is_run
from nayer_cli.runs.resume import find
from nayer_cli.storage import inputs
from nayer_cli.types import Settings

KEPT = ("preset", "lte.", "method.", "augment.", "eval.data", "eval.split", "eval.batch_size")
"""Settings of a run that hold for one that uses its images."""
WITHOUT_IMAGES = ("dfq-nagel", "analytic")
"""Calibrations that need no images; on the command line they are values of `--method`."""
NO_SYNTHESIS = {"schedule.warmup_epochs": 0, "schedule.rounds": 0}
"""Settings that make no images, since some are at hand. If rounds are asked for, the generator at hand makes more."""


def complete(settings: Settings) -> dict[str, Any]:
    """Fill in what is left open: the model, and the run whose images are used.

    A model that is a run's student brings that run's images along; without a model it is that of the newest run.

    Args:
        settings: dotted keys of `QuantizeConfig`.

    Raises:
        InputError: there is no model and no run, or `reuse` is not a run with images.

    """
    given = {key: value for key, value in settings.items() if value is not None}
    model = given.get("teacher.name")
    if model is None:
        folder = _newest()
        given["teacher.name"] = str(folder.path)
        given.setdefault("reuse", str(folder.path))
    elif "reuse" not in given and RunFolder(Path(model)).has_images:
        given["reuse"] = model
    method = str(given.get("method.name", DEFAULT_METHOD))
    plugins.check("methods", method, extra=WITHOUT_IMAGES)
    if method in WITHOUT_IMAGES:
        given |= {"quantizer.calibration": method, "quantizer.mode": "ptq"}
        del given["method.name"]
    if given.get("quantizer.calibration") in WITHOUT_IMAGES and given.get("quantizer.mode") == "ptq":
        given.pop("reuse", None)
        given.setdefault("method.name", "zeroq")  # the cheapest to set up, since it is not asked for images
    if "reuse" not in given:
        return given
    return _settings_of(find(given["reuse"]), given) | given


def lend(engine: Engine, folder: RunFolder, images: Tensor, labels: Tensor) -> None:
    """Give an engine the images uint8 `[n, C, H, W]` and labels `[n]` of a run, this process's part, and its generator.

    What the method lends comes along where the run's method has it in the same form.
    """
    rank, size = engine.group.rank, engine.group.size
    device = engine.student.descent.skipped.device
    for some, theirs in zip(images[rank::size].split(1000), labels[rank::size].split(1000), strict=True):
        engine.keep(some.to(device).float().div_(255), theirs.to(device))
    assert isinstance(engine.method, Method)
    own = engine.method.state_dict()
    state = folder.checkpoints.load_run()["method"]
    lent = engine.method.lends
    known = {key: state[key] for key in own if lent and key.startswith(lent) and _fits(own[key], state.get(key))}
    engine.method.load_state_dict(known, strict=False)


def _newest() -> RunFolder:
    """Find the finished run of `nayer distill` that started last."""
    folders = [RunFolder(path.parent) for path in RUNS.glob("*/result.json") if is_run(path.parent)]
    finished = [folder for folder in folders if folder.kind == "distill" and folder.has_images]
    if not finished:
        raise inputs.no_finished_run()
    return max(finished, key=lambda folder: folder.result.stat().st_mtime)


def _settings_of(folder: RunFolder, given: Settings) -> dict[str, Any]:
    """Return the settings of a run that hold for one that uses its images."""
    if not folder.has_images:
        raise InputError(
            f"{folder.path} has no synthetic images: it is not a run of nayer distill",
            hint="name a run of nayer distill",
        )
    old = folder.settings()
    kept = {key: value for key, value in old.items() if key.startswith(KEPT)}
    if given.get("method.name", kept.get("method.name")) != kept.get("method.name"):
        kept = {key: value for key, value in kept.items() if not key.startswith("method.")}
    kept = words.trusted(kept, given, folder.config)
    is_known = any(key.startswith("lte.") for key in given) or not folder.pool.is_file()
    lte = {} if is_known else {"lte.file": str(folder.pool)}
    name = kept.get("method.name")
    life = {f"method.{LIFE}": 0} if name and hasattr(config_class("methods", name), LIFE) else {}
    return {key: value for key, value in (kept | lte | NO_SYNTHESIS | life).items() if value is not None}


def _fits(own: Tensor, other: object) -> bool:
    return isinstance(other, Tensor) and other.shape == own.shape
