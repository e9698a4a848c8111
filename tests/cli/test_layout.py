import pytest

from nayer_cli.cli import layout
from nayer_cli.cli.results import evaluation_rows

PATH = "/home/somebody/experiments/2026-11-27-wrn_40_2-wrn_16_2/student"


PREPARED = {
    "input_size": [3, 224, 224],
    "preparation": {"interpolation": "bicubic", "crop_pct": 0.875, "crop_mode": "center"},
}


def evaluation(model):
    scores = {"top1": 0.9123, "ci95": (0.9012, 0.9234), "top5": 0.99, "loss": 0.3, "ece": 0.02, "n": 10000}
    return {"model": model, **scores, "agreement": None, "drop": None, "parameters": 2243546, **PREPARED}


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_models_are_compared_at_80_columns(count):
    document = {"reference": evaluation(PATH), "results": [evaluation(f"{PATH}{i}") for i in range(count)]}
    lines = layout.table(evaluation_rows(document), 80)
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for whole in ("parameters", "90.12 to 92.34 %", "2,243,546", "student0"):
        assert whole in text
    assert text.count("90.12 to 92.34 %") == count + 1


def test_a_pipe_has_one_line_for_each_model():
    document = {"reference": None, "results": [evaluation(PATH), evaluation("resnet18")]}
    assert [line.split()[0] for line in layout.table(evaluation_rows(document))] == ["model", PATH, "resnet18"]


def test_a_path_stays_whole_and_words_wrap():
    path, names = "x" * 100, ", ".join(f"preset{i}" for i in range(20))
    lines = layout.table([("", ""), ("run", path), ("presets", names)], 80)
    assert lines[0] == f"run       {path}"
    assert max(map(len, lines[1:])) <= 80
    assert " ".join(" ".join(lines[1:]).split()[1:]) == names


def test_a_short_table_is_set_as_it_is():
    rows = [("", "teacher", "student"), ("top-1", "90 %", "80 %"), ("run", "runs/one", "")]
    assert layout.table(rows, 80) == ["        teacher   student", "top-1   90 %      80 %", "run     runs/one"]


@pytest.mark.parametrize(
    ("name", "short"), [("resnet18", "resnet18"), ("runs/abc/students", "…/abc/students"), ("x" * 20, "…" + "x" * 14)]
)
def test_names_lose_their_beginning(name, short):
    assert layout.shorten(name, 15) == short
