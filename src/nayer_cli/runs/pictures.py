"""Pictures for people: grids of synthetic images with class names, and the curves of a run."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from nayer_cli.bank import MemoryBank
from nayer_cli.storage.files import write_bytes

CAPTION = 14


def draw_grid(
    images: Tensor, labels: Tensor, names: Sequence[str], *, rows: int = 10, columns: int = 10, zoom: int | None = None
) -> Image.Image:
    """Draw one row per class, the first `rows` classes that occur, with the class name beside it.

    Args:
        images: uint8 `[N, C, H, W]`.
        labels: `[N]`.
        names: class names in index order.
        rows: classes at most.
        columns: images of a class at most.
        zoom: factor by which each pixel is enlarged; None: so much that a caption has room.

    """
    classes = labels.unique()[:rows].tolist()
    zoom = zoom or max(1, 48 // images.shape[-1])
    height, width = images.shape[-2] * zoom, images.shape[-1] * zoom
    font = ImageFont.load_default(CAPTION)
    margin = max(int(font.getlength(_short(names[k]))) for k in classes) + 12
    sheet = Image.new("RGB", (margin + columns * (width + 2), len(classes) * (height + 2)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, k in enumerate(classes):
        top = row * (height + 2)
        pen.text((4, top + (height - CAPTION) // 2), _short(names[k]), fill="black", font=font)
        for column, image in enumerate(images[labels == k][:columns]):
            sheet.paste(
                to_pillow(image).resize((width, height), Image.Resampling.NEAREST),
                (margin + column * (width + 2), top),
            )
    return sheet


def to_pillow(image: Tensor) -> Image.Image:
    """Make a Pillow image of uint8 `[C, H, W]` with 1 or 3 channels (others: the first alone)."""
    channels = image if image.shape[0] == 3 else image[:1].expand(3, -1, -1)
    return Image.fromarray(np.ascontiguousarray(channels.permute(1, 2, 0).cpu().numpy()))


def save_png(path: Path, image: Image.Image) -> None:
    """Write a PNG atomically."""
    content = BytesIO()
    image.save(content, format="PNG")
    write_bytes(path, content.getvalue())


def draw_curves(
    path: Path,
    records: Sequence[dict[str, Any]],
    *,
    title: str = "",
    teacher: float | None = None,
    warmup_epochs: int = 0,
) -> bool:
    """Draw accuracy and losses over the epochs to a PNG; False where matplotlib is not installed.

    Args:
        path: the PNG.
        records: of the epochs, as in `metrics.jsonl`.
        title: what was run.
        teacher: its top-1 as a fraction, if it was measured.
        warmup_epochs: epochs at the start in which the student does not learn.

    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return False
    figure = Figure(figsize=(9, 3.6))
    figure.subplots_adjust(left=0.07, right=0.99, bottom=0.14, top=0.83, wspace=0.14)  # a solver takes twice the time
    figure.suptitle(title, fontsize="medium")
    accuracy, losses = figure.subplots(1, 2)
    _draw_accuracy(accuracy, records, teacher)
    _draw_losses(losses, records)
    for axes in (accuracy, losses):
        if warmup_epochs:
            axes.axvspan(0, warmup_epochs + 0.5, color="0.92", zorder=0, label="warm-up")
        axes.set(xlabel="epoch", xlim=(0, max((r["epoch"] for r in records), default=1) + 0.5))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small")
    content = BytesIO()
    figure.savefig(content, format="png", dpi=110)
    write_bytes(path, content.getvalue())
    return True


def _draw_accuracy(axes: Any, records: Sequence[dict[str, Any]], teacher: float | None) -> None:
    """Draw top-1 above the agreement, which is often nearly the same."""
    styles = {
        "top1": {"label": "student top-1", "color": "C0", "linewidth": 2, "marker": "o", "zorder": 3},
        "agreement": {
            "label": "agreement with the teacher",
            "color": "C1",
            "linestyle": "--",
            "marker": ".",
            "zorder": 2,
        },
    }
    for name, style in styles.items():
        points = [(r["epoch"], r["student"][name]) for r in records if name in r.get("student", {})]
        if points:
            axes.plot(*zip(*points, strict=True), markersize=4, **style)
    if teacher is not None:
        axes.axhline(teacher, color="0.3", linestyle=":", label=f"teacher top-1 ({100 * teacher:.1f} %)")
    axes.set(ylabel="fraction of images", ylim=(0, 1.02), title="accuracy")


def _draw_losses(axes: Any, records: Sequence[dict[str, Any]]) -> None:
    for name in sorted({name for r in records for name in r.get("losses", {})}):
        points = [(r["epoch"], r["losses"][name]) for r in records if name in r.get("losses", {})]
        axes.plot(*zip(*points, strict=True), marker=".", label=name)
    axes.set(title="losses, unweighted", yscale="symlog")


def newest_of_each(bank: MemoryBank, count: int) -> Tensor:
    """Slots of the newest `count` images of each class, on the host."""
    order = bank.newest(len(bank)).cpu()
    recent = bank.labels.cpu()[order]
    return torch.cat([order[recent == k][:count] for k in recent.unique().tolist()])


def _short(name: str) -> str:
    first = name.split(",")[0]
    return first if len(first) <= 24 else first[:23] + "…"
