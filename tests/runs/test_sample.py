import json

import numpy as np
import pytest

import pngs
from nayer_cli.errors import InputError
from nayer_cli.images.datasets import digits
from nayer_cli.runs.distill import distill
from nayer_cli.runs.sample import sample
from quick import quick

NAMES = ("../../x", "C:\\aux", "zero, null", "two", "2", "éclair", "a/b", " ", "x" * 300, "-rf")
NO_DATA = {"preset": "cifar10", "teacher.name": "builtin:digits", "student.name": "resnet8_digits"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose classes have the worst of names."""
    folder = tmp_path_factory.mktemp("sample")
    (folder / "names.txt").write_text("\n".join(name if name.strip() else "blank" for name in NAMES))
    distill(quick(folder, {"lte.labels": str(folder / "names.txt"), "eval.data": None, **NO_DATA}))
    return folder / "run"


def pictures(folder):
    return sorted(path for path in folder.rglob("*.png"))


def test_a_folder_for_each_class_inside_the_one_that_was_named(run, tmp_path):
    out = tmp_path / "deep" / "images"
    before = set(tmp_path.parent.iterdir())
    result = sample({"run": str(run), "count": 20, "out": str(out)})
    assert (result["images"], result["path"], result["source"]) == (20, str(out), "bank")
    assert {path.name for path in tmp_path.rglob("*") if path.is_dir()} >= {"00000-x", "00001-aux", "00005-clair"}
    assert len(pictures(out)) == 20 and set(tmp_path.parent.iterdir()) == before
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["00000-x"] == {"index": 0, "name": "../../x"} and len(manifest) == len(result["classes"]) == 10


def test_only_the_wanted_classes_by_name_or_index(run, tmp_path):
    settings = {"run": str(run), "classes": ["two", 5], "per_class": 2, "upscale": 3, "out": str(tmp_path / "o")}
    result = sample(settings)
    assert result["classes"] == {"two": 2, "éclair": 2}
    found = pictures(tmp_path / "o")
    assert [path.parent.name for path in found] == ["00003-two"] * 2 + ["00005-clair"] * 2
    small, large = (pngs.pixels(path) for path in found[:2])
    assert small.shape == large.shape == (48, 48, 3)
    assert (small[::3, ::3].repeat(3, 0).repeat(3, 1) == small).all()


def test_a_name_goes_before_an_index_that_looks_the_same(run, tmp_path):
    result = sample({"run": str(run), "classes": ["2"], "count": 1, "out": str(tmp_path / "o")})
    assert result["classes"] == {"2": 1} and (tmp_path / "o" / "00004-2").is_dir()


def test_one_picture_of_all(run, tmp_path):
    grid = tmp_path / "grid.png"
    result = sample({"run": str(run), "per_class": 4, "grid": str(grid)})
    assert result["path"] == str(grid) and result["images"] == 40
    width, height = pngs.size(grid)
    assert height == 10 * 50 and width > 4 * 50
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]
    sample({"run": str(run), "per_class": 4, "grid": str(grid), "upscale": 5})
    assert pngs.size(grid)[1] == 10 * (5 * 16 + 2)


def test_images_of_a_run_as_an_array_with_a_manifest(run, tmp_path):
    result = sample({"run": str(run), "count": 20, "format": "npz", "layout": "nhwc", "out": str(tmp_path / "set")})
    about = json.loads((tmp_path / "set" / "manifest.json").read_text())
    teacher = json.loads((run / "result.json").read_text())["teacher"]
    assert result["shape"] == about["shape"] == [20, 16, 16, 1] and about["values"] == "normalized"
    assert about["model_sha256"] == teacher["sha256"] and about["source"] == "bank"


def test_there_may_be_fewer_than_asked_for(run, tmp_path):
    assert sample({"run": str(run), "count": 1000, "out": str(tmp_path / "o")})["images"] == 57  # 3 are held back


def test_the_seed_chooses(run, tmp_path):
    def draw(seed, name, **more):
        sample({"run": str(run), "count": 10, "seed": seed, "out": str(tmp_path / name), **more})
        return [path.read_bytes() for path in pictures(tmp_path / name)]

    assert draw(0, "a") == draw(0, "b") != draw(1, "c")
    assert draw(0, "d", source="generator") == draw(0, "e", source="generator") != draw(1, "f", source="generator")


def test_fresh_images_need_no_evaluation_data_and_change_nothing(tmp_path):
    images, labels = digits.load("validation")
    np.savez(tmp_path / "data.npz", images=images[:50], labels=labels[:50], class_names=digits.FACTS.class_names)
    distill(quick(tmp_path, NO_DATA | {"lte.labels": "digits", "eval.data": str(tmp_path / "data.npz")}))
    (tmp_path / "data.npz").unlink()
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    result = sample({"run": str(tmp_path / "run"), "source": "generator", "count": 30, "out": str(tmp_path / "fresh")})
    assert result["classes"] == dict.fromkeys(digits.FACTS.class_names, 3)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_method_that_draws_no_labels_does_not_search_for_ever(tmp_path):
    distill(quick(tmp_path, {"schedule.epochs": 1}, method="zskt"))
    result = sample({"run": str(tmp_path / "run"), "source": "generator", "per_class": 3, "out": str(tmp_path / "o")})
    assert 0 < result["images"] <= 30 and max(result["classes"].values()) == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"run": "nowhere"}, "not a run directory"),
        ({"classes": ["too"]}, "no class 'too' .did you mean 'two'"),
        ({"classes": [10]}, "no class '10'"),
        ({"sorce": "bank"}, "did you mean 'source'"),
        ({"out": "."}, "not an empty folder"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes, words, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").touch()
    with pytest.raises(InputError, match=words):
        sample({"run": str(run), **changes})
