"""One class, two, a thousand, and as many as ImageNet-21k has, each within a stated memory."""

from pathlib import Path

import pytest
import torch

import hostile
from nayer_cli.__main__ import main
from nayer_cli.errors import InputError
from nayer_cli.lte import encoder
from nayer_cli.lte.pool import build_pool, load_pool, save_pool
from quick import quick

MANY = 21_000
NETWORK = """
from torch import nn

def network():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, {})
    )
"""


def command(folder: Path, classes: int) -> list[str]:
    """Write a teacher of so many classes and their names; return a quick `nayer distill` of it."""
    folder.mkdir(exist_ok=True)
    (folder / f"wide{classes}.py").write_text(NETWORK.format(classes))
    (folder / "names.txt").write_text("".join(f"class {index}\n" for index in range(max(classes, 2))))
    changes = {
        "preset": "cifar10",
        "teacher.name": f"py:wide{classes}:network",
        "student.name": f"py:wide{classes}:network",
        "teacher.input_size": 8,
        "teacher.mean": [0.5],
        "teacher.std": [0.5],
        "lte.labels": str(folder / "names.txt"),
    }
    return ["distill", *(f"--set={key}={value!r}" for key, value in quick(folder, changes).items())]


def test_one_class_is_refused_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    assert main(command(tmp_path, 1)) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "the teacher 'wide1' has one output; a classifier tells at least two classes apart" in told
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_runs_of_many_classes_take_no_more_than_the_stated_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = [command(tmp_path / str(classes), classes) for classes in (2, 1000, MANY)]
    for classes in (2, 1000, MANY):
        monkeypatch.syspath_prepend(tmp_path / str(classes))
    (code, two), (code_thousand, thousand), (code_many, many) = hostile.run_all(commands)
    assert (code, code_thousand, code_many) == (0, 0, 0)
    assert thousand - two < 64  # MB
    assert many - two < 512


@pytest.mark.parametrize("name", ["random", "index"])
def test_the_pool_of_as_many_classes_as_imagenet_21k(name: str, tmp_path: Path) -> None:
    names = [f"class {index}" for index in range(MANY)]
    pool = build_pool(encoder.find(name), names, "p2")
    assert pool.embeddings.shape == (MANY, 512)
    save_pool(tmp_path / "p", pool)
    assert torch.equal(load_pool(tmp_path / "p", names).embeddings, pool.embeddings)
    twins = pool.embeddings.clone()
    twins[MANY - 1] = twins[3]
    save_pool(tmp_path / "p", pool.__class__(twins, pool.names))
    with pytest.raises(InputError, match=r"'class 3' \(class 3\) and 'class 20999' \(class 20999\)"):
        load_pool(tmp_path / "p", names)


def test_one_hot_vectors_of_so_many_are_refused_with_their_size() -> None:
    with pytest.raises(InputError, match=r"one-hot table of 21,000 classes would take 1\.8 GB") as fault:
        build_pool(encoder.find("onehot"), [f"class {index}" for index in range(MANY)], "p2")
    assert "--encoder random" in str(fault.value.hint)
