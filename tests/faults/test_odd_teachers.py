"""Teachers of every make: what cannot be used as it is meant is refused in a sentence, and the rest teaches alike."""

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from nayer_cli.__main__ import main
from nayer_cli.classifiers.model import Normalized, load_classifier, new_classifier, save_classifier
from nayer_cli.config import ModelConfig
from nayer_cli.errors import InputError
from nayer_cli.runs.distill import distill
from nayer_cli.storage.runlog import read_metrics
from nayer_cli.types import ImageShape
from odd_networks import HEADS, NORMS, OTHER_NORMS, WRONG_HEADS
from quick import quick

FACTS = {"input_size": 16, "mean": (0.5,), "std": (0.25,)}
IMAGES = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def spec(name: str, **facts: object) -> ModelConfig:
    return ModelConfig(f"py:odd_networks:{name}", **{"channels": 3, **FACTS, **facts})  # type: ignore[arg-type]


def answers(name: str) -> torch.Tensor:
    classifier = load_classifier(spec(name))
    with torch.no_grad():
        return Normalized(classifier.network, classifier.normalization)(IMAGES)


def settings(name: str, folder: Path) -> dict[str, object]:
    """One warm-up epoch of one round, one epoch of three steps."""
    changes = {
        "preset": "cifar10",
        "teacher.name": f"py:odd_networks:{name}",
        "teacher.channels": 3,
        **{f"teacher.{fact}": value for fact, value in FACTS.items()},
        "student.name": "resnet8_digits",
        "lte.labels": "cifar10",
        "method.batch": 8,
        "output.sample_every": 0,
    }
    return quick(folder, changes)


def refused(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What `nayer distill` says of a teacher that it does not take."""
    facts = [
        f"--set=teacher.{fact}={list(value) if isinstance(value, tuple) else value}" for fact, value in FACTS.items()
    ]
    command = ["distill", "--teacher", f"py:odd_networks:{name}", "--set=teacher.channels=3", *facts]
    assert main([*command, "--student", "resnet8_digits", "--labels", "cifar10"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err
    return err


@pytest.mark.parametrize("name", HEADS)
def test_heads_that_mean_the_same_logits(name: str) -> None:
    torch.testing.assert_close(answers(name).softmax(1), answers("plain").softmax(1))


@pytest.mark.parametrize("name", WRONG_HEADS)
def test_heads_that_would_teach_something_else(name: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    err = refused(name, capsys)
    assert f"error: '{name}'" in err and WRONG_HEADS[name][1] in err
    assert list(tmp_path.iterdir()) == []


def test_probabilities_are_refused_with_the_way_out(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert "hint: leave out its softmax, or make it a log_softmax" in refused("softmax", capsys)
    with pytest.raises(InputError, match="'softmax' returns probabilities"):
        new_classifier(ModelConfig("py:odd_networks:softmax"), load_classifier(spec("plain")))


@pytest.mark.parametrize("name", ["half", "bfloat", "double"])
def test_weights_of_another_precision_are_computed_with_in_float32(name: str) -> None:
    assert {p.dtype for p in load_classifier(spec(name)).network.parameters()} == {torch.float32}
    torch.testing.assert_close(answers(name), answers("plain"), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weight_files_of_another_precision(dtype: torch.dtype, tmp_path: Path) -> None:
    network = timm.create_model("wrn_16_1", num_classes=10).eval()
    weights = {
        name: value.to(dtype) if value.is_floating_point() else value for name, value in network.state_dict().items()
    }
    save_file(weights, tmp_path / "x.safetensors")
    loaded = load_classifier(ModelConfig("wrn_16_1", weights=str(tmp_path / "x.safetensors"))).network
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(loaded(images), network(images), rtol=0.1, atol=0.1)


def test_a_forward_that_casts_is_refused_with_the_reason(capsys) -> None:
    err = refused("half_inside", capsys)
    assert "'half_inside' cannot take 3×16×16 images: " in err and "Half" in err
    assert "float32" in err


def test_one_channel_is_asked_for_by_the_teacher(capsys) -> None:
    grey = load_classifier(spec("grey", channels=1))
    assert (grey.shape, grey.normalization.mean) == (ImageShape(1, 16, 16), (0.5,))
    assert "'grey' cannot take 3×16×16 images" in refused("grey", capsys)


def test_a_fixed_size_is_refused_at_another_one() -> None:
    assert load_classifier(spec("fixed")).shape == ImageShape(3, 16, 16)
    with pytest.raises(InputError, match="'fixed' cannot take 3×20×20 images: ") as fault:
        load_classifier(spec("fixed", input_size=20))
    assert "teacher.input_size" in str(fault.value.hint)


def test_images_that_are_not_square(tmp_path: Path) -> None:
    like = replace(load_classifier(spec("plain")), shape=ImageShape(3, 12, 20))
    save_classifier(tmp_path / "wide", new_classifier(ModelConfig("resnet8_digits"), like), card="", extra={})
    untold = dict.fromkeys(f"teacher.{fact}" for fact in ("channels", *FACTS))
    result = distill(settings("plain", tmp_path) | untold | {"teacher.name": str(tmp_path / "wide")})
    assert result["images"]["synthesized"] > 0
    assert load_classifier(ModelConfig(str(tmp_path / "run"))).shape == ImageShape(3, 12, 20)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [("nan_weight", "3.weight"), ("infinite_variance", "4.running_var"), ("beyond_float32", "8.weight")],
)
def test_a_factory_with_weights_that_are_not_finite(name: str, tensor: str, capsys) -> None:
    assert f"weight {tensor} of '{name}' is not finite" in refused(name, capsys)


def test_finite_weights_that_make_nan_are_refused_before_the_run(capsys) -> None:
    assert "'negative_variance' answers noise with NaN or infinity" in refused("negative_variance", capsys)


@pytest.mark.parametrize("tensor", ["conv1.weight", "linear.bias", "bn1.running_mean", "bn1.running_var"])
@pytest.mark.parametrize(("role", "channels"), [("teacher", 3), ("student", 1)])
def test_a_file_with_a_number_that_is_not_finite(
    tensor: str, role: str, channels: int, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    weights = timm.create_model("wrn_16_1", num_classes=10, in_chans=channels).state_dict()
    weights[tensor].view(-1)[-1] = float("nan") if "bias" in tensor else float("-inf")
    torch.save(weights, "x.pth")
    other = ["--student", "wrn_16_1"] if role == "teacher" else []
    command = ["distill", f"--{role}", "wrn_16_1", f"--set={role}.weights=x.pth", *other]
    assert main([*command, "--labels", "digits"]) == 2
    assert f"error: weight {tensor} of x.pth is not finite" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["x.pth"]


def test_a_model_folder_with_a_number_that_is_not_finite(tmp_path: Path, capsys) -> None:
    classifier = new_classifier(ModelConfig("wrn_16_1"), load_classifier(spec("plain")))
    classifier.network.state_dict()["bn1.running_var"][0] = float("nan")
    save_classifier(tmp_path / "m", classifier, card="", extra={})
    assert main(["eval", str(tmp_path / "m"), "--data", "digits"]) == 2
    assert f"weight bn1.running_var of {tmp_path / 'm' / 'model.safetensors'} is not finite" in capsys.readouterr().err


@pytest.mark.parametrize("name", [*OTHER_NORMS, "folded"])
def test_a_teacher_without_statistics_is_recognized(name: str, tmp_path: Path) -> None:
    notes: list[str] = []
    result = distill(
        settings(name, tmp_path), listen=lambda record: notes.extend(filter(None, [record.get("message")]))
    )
    (*_, record) = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert "tv" in record["losses"] and "bn" not in record["losses"]
    (note,) = [note for note in notes if "BatchNorm2d" in note]
    assert f"'{name}' has no BatchNorm2d" in note and "total variation keeps the images smooth instead" in note
    assert result["teacher"]["bn_layers"] == 0


@pytest.mark.parametrize("name", [*NORMS, "auxiliary", "reordered"])
def test_a_teacher_with_statistics_is_recognized(name: str, tmp_path: Path) -> None:
    result = distill(settings(name, tmp_path))
    (*_, record) = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert "bn" in record["losses"] and "tv" not in record["losses"]
    assert result["teacher"]["bn_layers"] == (3 if name == "auxiliary" else 2)


def test_a_teacher_without_gradients_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="carry no gradient"):
        distill(settings("blind", tmp_path))
