import os

import numpy as np
import pytest
from PIL import Image

from nayer_cli.errors import InputError
from nayer_cli.images.sources import folder


def fill(root, *names):
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), i).save(root / name)


def read(source):
    loaded = [sample.load() for sample in source.samples(range(len(source)))]
    return [(int(np.asarray(picture)[0, 0]), label) for picture, label in loaded]


def test_images_come_by_class_and_name(tmp_path):
    fill(tmp_path, "b/2.png", "b/1.PNG", "a/x/3.png")
    source = folder.open_source(str(tmp_path), "validation")
    assert source.classes == ["a", "b"]
    assert read(source) == [(2, 0), (1, 1), (0, 1)]


def test_a_split_folder_is_found(tmp_path):
    fill(tmp_path, "val/a/1.png", "train/a/1.png", "train/b/1.png")
    assert folder.open_source(str(tmp_path), "train").classes == ["a", "b"]
    assert len(folder.open_source(str(tmp_path), "validation")) == 1


def test_hidden_and_foreign_files_do_not_count(tmp_path):
    fill(tmp_path, "a/1.png", ".ipynb_checkpoints/1.png", "a/._1.png")
    (tmp_path / "a" / "notes.txt").write_text("x")
    source = folder.open_source(str(tmp_path), "validation")
    assert (source.classes, len(source)) == (["a"], 1)


def test_an_empty_class_folder_is_named(tmp_path):
    fill(tmp_path, "a/1.png")
    (tmp_path / "b").mkdir()
    with pytest.raises(InputError, match="class folder 'b'"):
        folder.open_source(str(tmp_path), "validation")


def test_linked_class_folders_count(tmp_path):
    fill(tmp_path / "real", "1.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a").symlink_to(tmp_path / "real")
    assert len(folder.open_source(str(tmp_path / "set"), "validation")) == 1


def test_a_named_pipe_is_not_waited_for(tmp_path):
    fill(tmp_path, "a/1.png")
    os.mkfifo(tmp_path / "a" / "2.png")
    _, pipe = folder.open_source(str(tmp_path), "validation").samples([0, 1])
    with pytest.raises(OSError, match="not a regular file"):
        pipe.load()


def test_links_in_a_circle_are_not_followed(tmp_path):
    fill(tmp_path, "a/1.png", "b/2.png")
    for name in ("back", "again"):
        (tmp_path / "a" / name).symlink_to(tmp_path)
        (tmp_path / "b" / name).symlink_to(tmp_path / "a")
    assert len(folder.open_source(str(tmp_path), "validation")) == 4  # b also has a's image, by two names
