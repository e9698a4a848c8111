"""Methods that use no embeddings run with a teacher whose classes have no names, where there is no text encoder."""

from pathlib import Path
from typing import Any

import pytest

from nayer_cli import plugins
from nayer_cli.errors import InputError
from nayer_cli.method import EMBEDDINGS
from nayer_cli.runs.distill import distill
from quick import quick


def settings(folder: Path, method: str) -> dict[str, Any]:
    facts = {"num_classes": 10, "input_size": 16, "channels": 3, "mean": [0.5] * 3, "std": [0.25] * 3}
    teacher = {f"teacher.{name}": value for name, value in facts.items()}
    networks = {"teacher.name": "py:odd_networks:plain", "student.name": "py:odd_networks:plain"}
    return quick(
        folder, {"preset": None, "lte.encoder": "clip", "schedule.batch_size": 16, **teacher, **networks}, method
    )


def methods(*, with_text: bool) -> list[str]:
    uses = {name: plugins.part("methods", name, "Method").uses_names for name in plugins.names("methods")}
    return [name for name, what in uses.items() if (what == EMBEDDINGS) == with_text]


@pytest.mark.parametrize("method", methods(with_text=False))
def test_a_method_without_text_needs_no_names(method: str, tmp_path: Path) -> None:
    result = distill(settings(tmp_path, method))
    assert (result["encoder"], result["label_names"]) == (None, None)
    assert not (tmp_path / "run/lte.safetensors").exists() and not (tmp_path / "cache").exists()


@pytest.mark.parametrize("method", methods(with_text=True))
def test_a_method_with_text_asks_for_them(method: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not carry class names"):
        distill(settings(tmp_path, method))
