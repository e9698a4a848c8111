from typing import Any

import pytest
from huggingface_hub import ModelCard

from nayer_cli.runs.card import model_card

TEACHER = {
    "name": "resnet50",
    "parameters": 9,
    "sha256": "ab12",
    "hub": "timm/resnet50",
    "license": "apache-2.0",
}
STUDENT = {"name": "tiny: 'a'", "parameters": 3, "n": 10, "hits": 9, "top1": 0.9, "top5": 1.0}
RESULT: dict[str, Any] = {
    "teacher": TEACHER,
    "student": STUDENT,
    "images": {"synthesized": 5, "seen": 9},
    "method": "nayer",
    "encoder": "clip",
    "seed": 0,
    "label_names": ["cat", "dog"],
}


def test_hubs_read_license_base_and_figures() -> None:
    data = ModelCard(model_card(RESULT)).data  # type: ignore[arg-type]
    assert data.license == "apache-2.0" and data.base_model == "timm/resnet50"
    assert [(one.metric_type, one.metric_value) for one in data.eval_results] == [("accuracy", 0.9), ("accuracy", 1.0)]


def test_people_read_what_was_copied_and_what_helped() -> None:
    card = model_card(RESULT)  # type: ignore[arg-type]
    assert "SHA-256 of its weights ab12" in card and "embedded by `clip`" in card


@pytest.mark.parametrize("teacher", [None, {"name": "own", "parameters": 9}])
def test_nothing_is_guessed(teacher: Any) -> None:
    result = RESULT | {"teacher": teacher, "encoder": None, "student": {"name": "s", "parameters": 3}}
    data = ModelCard(model_card(result)).data  # type: ignore[arg-type]
    assert data.license == "unknown" and data.base_model is None and not data.eval_results
