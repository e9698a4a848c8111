"""`nayer sample`: synthetic images of a run, from its memory bank or fresh from its generator, or for a model alone."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from nayer_cli import __version__
from nayer_cli import config as configuration
from nayer_cli.classifiers.model import Classifier
from nayer_cli.config import DistillConfig, QuantizeConfig, SampleConfig
from nayer_cli.engine import Engine
from nayer_cli.errors import InputError
from nayer_cli.lte.labels import check_fit
from nayer_cli.lte.pool import load_pool
from nayer_cli.method import Method
from nayer_cli.runs import assemble, distill, rounds, sampling, words
from nayer_cli.runs.documents import Sampled
from nayer_cli.runs.folder import RunFolder
from nayer_cli.runs.image_set import Form, ImageSet, Source, check_channels, shape_of, write_folders, write_set
from nayer_cli.runs.pictures import draw_grid, save_png
from nayer_cli.runs.resume import find
from nayer_cli.runs.shards import open_bank
from nayer_cli.runs.synthesize import about_model, class_indices, total_of, without_run
from nayer_cli.storage.runlog import Listener, RunLog
from nayer_cli.types import Settings


def sample(settings: Settings, *, listen: Listener | None = None) -> Sampled:
    """Write images as an array, as `CLASS/NNNNN.png` folders, or as one grid; fewer if there are not that many.

    Args:
        settings: keys of `SampleConfig`, such as `{"run": "runs/one"}` or `{"model.name": "resnet18", "out": "x"}`.
        listen: called with progress records.

    Returns:
        `images` (how many), `classes` (name → how many), `path` of the folder, file or grid, and `source`. Where a
        manifest tells of shape, values and layout, these and its path, too.

    Raises:
        InputError: neither a run of `nayer distill` nor a model, no such class, no image of these classes, or `out` is
            taken.
        EnvironmentFault: the disk is full; nothing is left.
        RunFailed: no image could be made.

    """
    config = configuration.build(SampleConfig, {k: v for k, v in settings.items() if v is not None})
    sampling.check(config)
    source = _of_run(config) if config.run else without_run(config, RunLog(None, listen))
    images, labels, names = source.found.images, source.found.labels, source.found.names
    total = total_of(config, names)
    if config.run or sampling.asks_for_classes(config):
        wanted = class_indices(config.classes, names)
        images, labels = _choose(images, labels, wanted, config.per_class or total, total)
    if len(images) == 0:
        raise InputError(f"{source.name} has no image of these classes", hint="choose other --classes")
    return _write(config, source._replace(found=ImageSet(images[:total], labels[:total], names)))


def _write(config: SampleConfig, source: Source) -> Sampled:
    """Write images in the form that is asked for, and say what was written."""
    found = source.found
    document: Sampled = {
        "images": len(found.images),
        "classes": {found.names[k]: int((found.labels == k).sum()) for k in found.labels.unique().tolist()},
        "path": str(config.grid or sampling.place_of(config)),
        "source": str(source.about["source"]),
    }
    if config.grid:
        _draw(Path(config.grid), config, found)
    elif sampling.has_manifest(config) and source.model:
        form = form_of(config, source.model)
        place, is_file = sampling.place_of(config), sampling.is_file(config)
        manifest = write_set(place, found, form, source.about, is_file=is_file)
        document |= {"format": form.format, "shape": shape_of(found, form), "layout": form.axes}
        document |= {"values": form.values, "manifest": str(manifest)}
    else:
        write_folders(sampling.place_of(config), found, config.upscale)
    return document


def form_of(config: SampleConfig, model: Classifier) -> Form:
    """Return how images for a model are written; PNG files are refused where they would lose channels."""
    format, values = sampling.format_of(config), sampling.values_of(config)
    check_channels(format, model.shape.channels)
    return Form(format, values, config.layout, model.normalization, config.upscale)


def _of_run(config: SampleConfig) -> Source:
    """Take images of a run; its teacher is loaded if fresh ones are made, or if a manifest describes it."""
    folder = find(config.run)
    if not folder.has_images:
        raise InputError(
            f"{folder.path} has no synthetic images: it is not a run of nayer distill",
            hint="name a run of nayer distill",
        )
    names, teacher = _names_of(folder), None
    class_indices(config.classes, names)  # reports a wrong one before anything is loaded
    if config.source == "generator":
        engine, teacher = _rebuild(folder, config)
        images, labels = _fresh(engine, class_indices(config.classes, names), total_of(config, names))
    else:
        images, labels = _from_bank(folder, config)
        teacher = _teacher_of(folder, config)[1] if sampling.has_manifest(config) else None
    about = {"source": config.source, "run": str(folder.path), "seed": config.seed, "nayer": __version__}
    about |= about_model(teacher) if teacher else {}
    return Source(ImageSet(images, labels, names), teacher, about, f"the {config.source} of {folder.path}")


def _names_of(folder: RunFolder) -> Sequence[str]:
    """Return the class names of a run; its checkpoints carry them, and of an older run the LTE pool."""
    state = folder.checkpoints.load_run(with_bank=True)
    names: Sequence[str] = state["names"] if "names" in state else load_pool(folder.pool).names
    check_fit(names, f"the checkpoint of {folder.path}")
    return names


def _from_bank(folder: RunFolder, config: SampleConfig) -> tuple[Tensor, Tensor]:
    """Read the bank in random order."""
    images, labels = images_of(folder)
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(config.seed))
    return images[shuffled], labels[shuffled]


def images_of(folder: RunFolder) -> tuple[Tensor, Tensor]:
    """Return the images uint8 `[n, C, H, W]` and labels `[n]` of a run's bank, as the newest checkpoint left it."""
    processes = folder.checkpoints.load_run(with_bank=True)["processes"]
    banks = [open_bank(folder.checkpoints.bank, part["bank"]) for part in processes]
    images, labels = (torch.cat(parts) for parts in zip(*(bank.held() for bank in banks), strict=True))
    return images, labels


def _fresh(engine: Engine, wanted: list[int], total: int) -> tuple[Tensor, Tensor]:
    """Run rounds of synthesis from the newest checkpoint until there are `total` images, evenly of those classes."""
    method = engine.method
    assert isinstance(method, Method)  # `_rebuild` refuses runs that made no images
    with engine.student.frozen() as student:
        return rounds.make(method, student, engine.state, wanted, total)


def _rebuild(folder: RunFolder, config: SampleConfig) -> tuple[Engine, Classifier]:
    """Put the run's engine together again with random generators of our own; its evaluation data is not needed."""
    if folder.kind == "quantize":
        raise InputError(
            f"{folder.path} is a run of nayer quantize, which does not save its generator separately",
            hint="sample from its bank (--source bank), or from the run whose images it used",
        )
    resolved, teacher = _teacher_of(folder, config)
    engine = distill.rebuild(resolved, teacher, folder).engine
    engine.rng.reseed(config.seed)
    return engine, teacher


def _teacher_of(folder: RunFolder, config: SampleConfig) -> tuple[DistillConfig, Classifier]:
    """Load a run's teacher, with the settings of the run."""
    kept = {key: value for key, value in folder.settings().items() if not key.startswith("eval.")}
    settings = words.trusted(kept, {}, folder.config) | {"device": config.device, "seed": config.seed}
    if folder.kind == "quantize":
        return assemble.resolve(settings, QuantizeConfig, "quantize")
    return assemble.resolve(settings, DistillConfig, "distill")


def _choose(images: Tensor, labels: Tensor, wanted: list[int], each: int, total: int) -> tuple[Tensor, Tensor]:
    """Take up to `each` images of each wanted class, classes taking turns, and `total` at most."""
    turns = [(labels == k).nonzero().squeeze(1)[:each].tolist() for k in wanted]
    order = [turn[i] for i in range(max(map(len, turns))) for turn in turns if i < len(turn)][:total]
    return images[order], labels[order]


def _draw(path: Path, config: SampleConfig, found: ImageSet) -> None:
    """Draw one picture of all images."""
    rows, columns = len(found.labels.unique()), int(found.labels.bincount().max())
    zoom = config.upscale if config.upscale > 1 else None
    save_png(path, draw_grid(found.images, found.labels, found.names, rows=rows, columns=columns, zoom=zoom))
