import numpy as np
import pytest
import torch

import pngs
from nayer_cli.bank import MemoryBank
from nayer_cli.runs.pictures import draw_curves, draw_grid, newest_of_each, save_png, to_pillow
from nayer_cli.types import ImageShape

NAMES = ["ant", "a very long name of a class indeed", "cat, felis catus"]


def flat(levels, channels=1):
    """Images of 4 by 4 pixels, each of one level."""
    return torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, channels, 4, 4)


def test_one_row_for_each_class_that_occurs():
    grid = np.asarray(draw_grid(flat([10, 20, 30]), torch.tensor([2, 0, 2]), NAMES, columns=2))
    zoom, step = 12, 50
    assert grid.shape[0] == 2 * step
    left = grid.shape[1] - 2 * step
    cells = [[grid[row * step + zoom, left + column * step + zoom, 0] for column in range(2)] for row in range(2)]
    assert cells == [[20, 255], [10, 30]]
    assert (grid[:step, :left] < 128).any() and (grid[step:, :left] < 128).any()  # the names


def test_rows_and_columns_have_limits():
    images, labels = flat(list(range(6))), torch.tensor([0, 0, 0, 1, 1, 2])
    grid = draw_grid(images, labels, NAMES, rows=2, columns=2)
    assert grid.size[1] == 2 * 50


def test_large_images_are_not_enlarged():
    grid = draw_grid(torch.zeros(1, 3, 64, 80, dtype=torch.uint8), torch.tensor([1]), NAMES, columns=1)
    assert grid.size[1] == 66


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_any_number_of_channels_becomes_a_picture(channels):
    image = torch.arange(channels * 16, dtype=torch.uint8).view(channels, 4, 4)
    shown = np.asarray(to_pillow(image))
    assert np.array_equal(shown[..., 0], image[0])
    assert np.array_equal(shown[..., 2], image[2 if channels == 3 else 0])


def test_a_png_is_written_with_its_folder(tmp_path):
    save_png(tmp_path / "a" / "b.png", to_pillow(flat([7])[0]))
    assert pngs.pixels(tmp_path / "a" / "b.png").flatten().tolist() == [7] * 48


def test_the_newest_images_are_found_in_a_ring():
    # Capacity 4; image number 5 was the last, in slot 1: slots hold the images 4, 5, 2, 3.
    bank = MemoryBank(4, ImageShape(1, 2, 2))
    for labels in ([0, 1, 0], [0, 0, 1]):
        bank.add(torch.zeros(3, 1, 2, 2), torch.tensor(labels), torch.Generator())
        if len(labels) == bank.added:
            assert newest_of_each(bank, 1).tolist() == [2, 1]
    assert bank.labels.tolist() == [0, 1, 0, 0] and bank.newest(3).tolist() == [1, 0, 3]
    assert newest_of_each(bank, 2).tolist() == [0, 3, 1]


def test_curves_of_all_losses_and_scores(tmp_path):
    records = [
        {"epoch": 1, "losses": {"ce": 1.0}},
        {"epoch": 2, "losses": {"ce": 0.5, "adv": -0.1}, "student": {"top1": 0.5, "agreement": 0.6}},
    ]
    assert draw_curves(tmp_path / "curves.png", records)
    with_scores = (tmp_path / "curves.png").read_bytes()
    assert pngs.size(tmp_path / "curves.png")[0] > 900
    assert draw_curves(tmp_path / "curves.png", records[:1])
    assert with_scores != (tmp_path / "curves.png").read_bytes()


def test_curves_are_legible_without_the_log(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    both = {"top1": 0.5, "agreement": 0.5}
    records = [{"epoch": epoch, "losses": {"ce": 1.0}, "student": both} for epoch in (1, 2, 3)]
    draw_curves(tmp_path / "curves.png", records, title="big → small, nayer", teacher=0.9, warmup_epochs=1)
    (figure,) = drawn
    top1, agreement, teacher = figure.axes[0].lines
    assert top1.get_zorder() > agreement.get_zorder() and top1.get_linestyle() != agreement.get_linestyle()
    assert set(teacher.get_ydata()) == {0.9}
    assert figure.get_suptitle() == "big → small, nayer"
    assert all("warm-up" in axes.get_legend_handles_labels()[1] for axes in figure.axes)


def test_without_matplotlib_there_are_no_curves(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    assert not draw_curves(tmp_path / "curves.png", [])
    assert not list(tmp_path.iterdir())
