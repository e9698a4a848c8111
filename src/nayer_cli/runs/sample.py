"""`nayer sample`: synthetic images of a run, from its memory bank or fresh from its generator."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from nayer_cli import config as configuration
from nayer_cli.config import DistillConfig, SampleConfig
from nayer_cli.engine import Engine
from nayer_cli.errors import InputError, did_you_mean
from nayer_cli.lte.pool import load_pool
from nayer_cli.method import Method
from nayer_cli.runs import assemble, distill, words
from nayer_cli.runs import folder as folders
from nayer_cli.runs.documents import Sampled
from nayer_cli.runs.folder import RunFolder
from nayer_cli.runs.pictures import draw_grid, save_png, to_pillow
from nayer_cli.runs.resume import find
from nayer_cli.runs.shards import open_bank
from nayer_cli.storage.files import write_json
from nayer_cli.types import Settings

PATIENCE = 20


def sample(settings: Settings) -> Sampled:
    """Write images as `CLASS/NNNNN.png` folders, or as one grid; fewer than asked for where there are not so many.

    Args:
        settings: keys of `SampleConfig`.

    Returns:
        `images` (how many), `classes` (name → how many), `path` of the folder or grid, and `source`.

    Raises:
        InputError: not a run of `nayer distill`, no such class, or no image of these classes.

    """
    config = configuration.build(SampleConfig, {k: v for k, v in settings.items() if v is not None})
    folder = find(config.run)
    if not folder.has_images:
        raise InputError(f"{folder.path} has no synthetic images: it is not a run of nayer distill")
    names = _names_of(folder)
    wanted = _class_indices(config.classes, names)
    total = config.per_class * len(wanted) if config.per_class else config.count
    found = _from_bank(folder, config) if config.source == "bank" else _fresh(folder, config, wanted, total)
    images, labels = _choose(*found, wanted, config.per_class or total, total)
    if len(images) == 0:
        raise InputError(f"the {config.source} of {folder.path} has no image of these classes")
    path = _write_grid(config, images, labels, names) if config.grid else _write_folders(config, images, labels, names)
    counts = {names[k]: int((labels == k).sum()) for k in labels.unique().tolist()}
    return {"images": len(images), "classes": counts, "path": str(path), "source": config.source}


def _names_of(folder: RunFolder) -> Sequence[str]:
    """Return the class names of a run; its checkpoints carry them, and of an older run the LTE pool."""
    state = folder.checkpoints.load()
    names: Sequence[str] = state["names"] if "names" in state else load_pool(folder.pool).names
    return names


def _class_indices(wanted: Sequence[int | str] | None, names: Sequence[str]) -> list[int]:
    """Turn names or indices into indices; nothing means every class."""
    known = {str(k): k for k in range(len(names))} | {name: k for k, name in enumerate(names)}
    words = [str(word) for word in wanted or ()]
    for word in words:
        if word not in known:
            raise InputError(f"the run has no class '{word}'{did_you_mean(word, names)}", hint="name it, or its index")
    return sorted({known[word] for word in words}) or list(range(len(names)))


def _from_bank(folder: RunFolder, config: SampleConfig) -> tuple[Tensor, Tensor]:
    """Read the bank in random order."""
    images, labels = images_of(folder)
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(config.seed))
    return images[shuffled], labels[shuffled]


def images_of(folder: RunFolder) -> tuple[Tensor, Tensor]:
    """Return the images uint8 `[n, C, H, W]` and labels `[n]` of a run's bank, as the newest checkpoint left it."""
    processes = folder.checkpoints.load()["processes"]
    banks = [open_bank(folder.checkpoints.bank, part["bank"]) for part in processes]
    images, labels = (torch.cat(parts) for parts in zip(*(bank.held() for bank in banks), strict=True))
    return images, labels


def _fresh(folder: RunFolder, config: SampleConfig, wanted: list[int], total: int) -> tuple[Tensor, Tensor]:
    """Run rounds of synthesis from the newest checkpoint until there are `total` images, evenly of the wanted classes.

    A method that draws no labels may never meet some class; so this ends, too, when `PATIENCE` rounds brought nothing.
    """
    engine = _rebuild(folder, config)
    method = engine.method
    assert isinstance(method, Method)  # `_rebuild` refuses runs that made no images
    images, labels, counts = [], [], torch.zeros(len(method.parts.pool), dtype=torch.long)
    have, idle = 0, 0
    with engine.student.frozen() as student:
        while have < total and idle < PATIENCE:
            engine.state.round += 1
            batch = method.synthesize(student, engine.state)
            images.append((batch.images.float() * 255).round().to(torch.uint8).cpu())
            labels.append(batch.labels.cpu())
            counts += labels[-1].bincount(minlength=len(counts))
            before, have = have, int(counts[wanted].clamp(max=-(-total // len(wanted))).sum())
            idle = 0 if have > before else idle + 1
    return torch.cat(images), torch.cat(labels)


def _rebuild(folder: RunFolder, config: SampleConfig) -> Engine:
    """Put the run's engine together again with random generators of our own; its evaluation data is not needed."""
    if folder.kind == "quantize":
        raise InputError(
            f"{folder.path} is a run of nayer quantize, which does not save its generator separately",
            hint="sample from its bank (--source bank), or from the run whose images it used",
        )
    kept = {key: value for key, value in folder.settings().items() if not key.startswith("eval.")}
    settings = words.trusted(kept, {}, folder) | {"device": config.device, "seed": config.seed}
    resolved, teacher = assemble.resolve(settings, DistillConfig, "distill")
    engine = distill.rebuild(resolved, teacher, folder).engine
    engine.rng.reseed(config.seed)
    return engine


def _choose(images: Tensor, labels: Tensor, wanted: list[int], each: int, total: int) -> tuple[Tensor, Tensor]:
    """Take up to `each` images of each wanted class, classes taking turns, and `total` at most."""
    turns = [(labels == k).nonzero().squeeze(1)[:each].tolist() for k in wanted]
    order = [turn[i] for i in range(max(map(len, turns))) for turn in turns if i < len(turn)][:total]
    return images[order], labels[order]


def _write_folders(config: SampleConfig, images: Tensor, labels: Tensor, names: Sequence[str]) -> Path:
    """Write one folder for each class and a manifest with the original names."""
    root = Path(config.out or f"{config.run}/images")
    if root.is_symlink() and not config.out:
        raise InputError(
            f"{root} is a symbolic link: nayer does not write through links", hint="choose a folder with --out"
        )
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"{root} exists and is not an empty folder", hint="choose another --out")
    for number, (image, k) in enumerate(zip(images, labels.tolist(), strict=True)):
        save_png(root / _folder_name(k, names) / f"{number:05d}.png", _scaled(image, config.upscale))
    manifest = {_folder_name(k, names): {"index": k, "name": names[k]} for k in labels.unique().tolist()}
    write_json(root / "manifest.json", manifest)
    return root


def _write_grid(config: SampleConfig, images: Tensor, labels: Tensor, names: Sequence[str]) -> Path:
    path = Path(str(config.grid))
    rows = len(labels.unique())
    columns = int(labels.bincount().max())
    zoom = config.upscale if config.upscale > 1 else None
    save_png(path, draw_grid(images, labels, names, rows=rows, columns=columns, zoom=zoom))
    return path


def _folder_name(index: int, names: Sequence[str]) -> str:
    """Return a safe name whatever the class is called: the index makes it unique, the slug readable."""
    return f"{index:05d}-{folders.slug(names[index].split(',')[0]).lower()}"


def _scaled(image: Tensor, factor: int) -> Image.Image:
    picture = to_pillow(image)
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
