import json
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch

from nayer_cli.classifiers.model import load_classifier
from nayer_cli.config import ModelConfig
from nayer_cli.errors import ConfigError, InputError
from nayer_cli.quant.integers import IntegerLayer
from nayer_cli.runs.distill import distill
from nayer_cli.runs.evaluate import evaluate_models
from nayer_cli.runs.quantize import quantize
from nayer_cli.runs.sample import sample
from nayer_cli.storage.toml import read_file
from quick import StopError, few_digits, outcome, quick, same, stop_at

QUICK = {"schedule.epochs": 2, "schedule.kd_steps": 3, "schedule.batch_size": 16, "device": "cpu", "amp": "off"}


class FirstPixels(torch.nn.Module):
    """Ten logits that know nothing."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, 100:110]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of `nayer distill`."""
    folder = tmp_path_factory.mktemp("distill")
    distill(quick(folder, {"eval.data": few_digits(folder)}))
    return folder / "run"


def settings(run: Path, out: Path, **changes: Any) -> dict[str, Any]:
    return {**QUICK, "teacher.name": str(run), "output.out": str(out), "quantizer.bits": "w4a4", **changes}


@pytest.fixture(scope="module")
def finished(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("quantize") / "q"
    quantize(settings(run, out))
    return out


def test_the_images_of_the_run_are_used_and_none_are_made(run, finished):
    result = json.loads((finished / "result.json").read_text())
    assert result["images"]["synthesized"] == 0
    assert result["images"]["seen"] == 2 * 3 * 16
    assert result["quantization"]["reused"] == str(run)
    assert list(result["quantization"]["stages"]) == ["float", "ptq", "fake_quantized", "deployed", "onnxruntime"]
    assert result["student"]["top1"] == result["quantization"]["stages"]["deployed"]["top1"]
    assert result["quantization"]["kept_float"] == []


def test_eval_measures_the_integers_and_the_onnx_file(run, finished):
    data = str(run.parent / "digits.npz")
    document = evaluate_models({"models": [str(finished), str(finished / "model.onnx")], "data": data, "device": "cpu"})
    integers, onnx = document["results"]
    stages = json.loads((finished / "result.json").read_text())["quantization"]["stages"]
    assert integers["top1"] == stages["deployed"]["top1"]
    assert onnx["top1"] == stages["onnxruntime"]["top1"]
    classifier = load_classifier(ModelConfig(name=str(finished)))
    assert any(isinstance(module, IntegerLayer) for module in classifier.network.modules())


def test_the_onnx_file_runs_as_integers_and_agrees(finished):
    onnx = json.loads((finished / "result.json").read_text())["quantization"]["onnx"]
    assert onnx["integer_convolutions"] == onnx["convolutions"] == 7
    assert onnx["float_layers"] == []
    assert onnx["agreement"] == 1.0


def test_called_bare_it_takes_the_newest_finished_run(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    (Path("runs") / "one").symlink_to(run)
    records: list[dict[str, Any]] = []
    bare = {**QUICK, "quantizer.bits": "w8a8", "quantizer.mode": "ptq", "output.out": "out", "export.onnx": "off"}
    result = quantize(bare, listen=records.append)
    assert result["teacher"]["name"] == "resnet8_digits"
    assert any("runs/one" in record.get("message", "") for record in records)


def test_without_a_model_and_a_run_it_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no finished run") as caught:
        quantize({"quantizer.bits": "w4a4"})
    assert "--model" in str(caught.value.hint)


@pytest.mark.parametrize(("epoch", "done"), [(1, 2), (2, 1)])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(run, finished, tmp_path, epoch, done):
    again = settings(run, tmp_path / "q", **{"output.save_minutes": 0.0})
    with pytest.raises(StopError):
        quantize(again, listen=stop_at(epoch, "student", done))
    quantize({}, resume=str(tmp_path / "q"))
    one, other = outcome(finished), outcome(tmp_path / "q")
    assert same(one["state"]["student"], other["state"]["student"])
    assert one["files"]["student/model.safetensors"] == other["files"]["student/model.safetensors"]


def test_steps_alone_can_be_chosen(run, tmp_path):
    result = quantize(settings(run, tmp_path / "q", **{"quantizer.mode": "ptq", "quantizer.bits": "w8a8"}))
    assert result["images"]["seen"] == 0
    stages = result["quantization"]["stages"]
    assert stages["ptq"] == stages["fake_quantized"]


@pytest.mark.parametrize("bn", ["freeze", "recalibrate"])
def test_statistics_stay_or_are_measured_anew(run, tmp_path, bn):
    changes = {"quantizer.bn": bn, "export.onnx": "off"}
    result = quantize(settings(run, tmp_path / "q", **changes))
    assert result["quantization"]["bn"] == bn


def test_images_can_be_made_by_the_generator_at_hand(run, tmp_path):
    changes = {"schedule.rounds": 1, "method.g_steps": 1, "export.onnx": "off"}
    result = quantize(settings(run, tmp_path / "q", **changes))
    assert result["images"]["synthesized"] == 2 * 20


def test_another_model_can_use_the_images(run, tmp_path):
    changes = {"teacher.name": "builtin:digits", "reuse": str(run), "export.onnx": "off"}
    result = quantize(settings(run, tmp_path / "q", **changes))
    assert (result["teacher"]["name"], result["images"]["synthesized"]) == ("resnet14_digits", 0)


@pytest.mark.parametrize(
    ("mode", "images"), [("qat", "held-back synthetic images"), ("ptq", "the run's synthetic images")]
)
def test_without_data_agreement_is_measured_on_images_that_nobody_learned(mode, images, run, tmp_path):
    nothing_known = {
        "quantizer.mode": mode,
        "preset": "cifar10",
        "lte.labels": "digits",
        "lte.encoder": "random",
        "reuse": None,
    }
    making = {"schedule.warmup_epochs": 1, "schedule.warmup_rounds": 3, "schedule.rounds": 0, "schedule.epochs": 1}
    method = {"method.batch": 100, "method.g_steps": 1, "method.width": 4, "method.code_size": 16}
    result = quantize(settings(run / "student", tmp_path / "q", **nothing_known, **making, **method))
    stages = result["quantization"]["stages"]
    assert stages["deployed"]["agreement_on"] == images
    assert "top1" not in result["student"]
    assert result["quantization"]["onnx"]["agreement"] == 1.0


def test_bits_out_of_range_are_refused_before_any_work(run, tmp_path):
    with pytest.raises(ConfigError, match="2 to 8"):
        quantize(settings(run, tmp_path / "q", **{"quantizer.bits": "w1a1"}))
    assert not (tmp_path / "q").exists()


def test_gates_are_about_the_integers(run, tmp_path):
    result = quantize(settings(run, tmp_path / "q", **{"eval.min_top1": 1.0, "export.onnx": "off"}))
    (gate,) = result["gates"]
    assert gate["value"] == result["quantization"]["stages"]["deployed"]["top1"]
    assert gate["stage"] == "deployed" and result["warnings"] == []


def test_the_worst_of_what_ships_decides_and_stages_that_disagree_are_told(run, tmp_path, monkeypatch):
    monkeypatch.setattr("nayer_cli.onnx.runner.OnnxNetwork.forward", lambda self, x: -self.standin(x), raising=False)
    monkeypatch.setattr("nayer_cli.onnx.runner.OnnxNetwork.standin", FirstPixels(), raising=False)
    notes: list[dict[str, Any]] = []
    result = quantize(settings(run, tmp_path / "q", **{"eval.min_top1": 1.0}), listen=notes.append)
    top1, agreement = result["gates"]
    shipped = [result["quantization"]["stages"][stage]["top1"] for stage in ("deployed", "onnxruntime")]
    assert top1["value"] == min(shipped) and shipped[0] != shipped[1]
    assert (agreement["metric"], agreement["stage"], agreement["passed"]) == ("agreement", "onnxruntime", False)
    (warning,) = result["warnings"]
    assert "'integers' and 'ONNX Runtime'" in warning
    assert warning in [note["message"] for note in notes if note.get("level") == "warning"]


def test_a_quantized_model_is_not_quantized_again(finished, tmp_path):
    with pytest.raises(InputError, match="already quantized"):
        quantize(settings(finished / "student", tmp_path / "q", reuse=None))


def test_a_dry_run_leaves_nothing(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = quantize({**settings(run, tmp_path / "q"), "output.out": None}, dry_run=True)
    assert result["dry_run"]
    assert list(tmp_path.iterdir()) == []


def test_a_timm_model_is_quantized_with_its_own_images(tmp_path):
    given = {
        **quick(tmp_path, {"student.name": None}),
        **QUICK,
        "teacher.name": "builtin:digits",
        "quantizer.bits": "w4a8",
        "export.onnx": "off",
    }
    result = quantize(given)
    assert result["images"]["synthesized"] == 3 * 20
    assert read_file(tmp_path / "run/config.toml")["quantizer.bits"] == "w4a8"
    assert torch.isfinite(
        load_classifier(ModelConfig(name=str(tmp_path / "run"))).network(torch.rand(2, 1, 16, 16))
    ).all()


@pytest.mark.parametrize("method", ["dfq-nagel", "analytic"])
def test_without_images_no_image_is_made(run, tmp_path, method):
    changes = {"method.name": method, "quantizer.bits": "w8a8", "eval.data": "digits"}
    result = quantize(settings(run / "student", tmp_path / "q", **changes))
    assert result["method"] == method
    assert result["images"] == {"synthesized": 0, "seen": 0}
    assert result["quantization"]["stages"]["deployed"]["agreement"] > 0.9
    (again,) = evaluate_models({"models": [str(tmp_path / "q")], "data": "digits", "device": "cpu"})["results"]
    assert again["loss"] == pytest.approx(result["student"]["loss"], rel=1e-3)


def test_a_run_is_resumed_by_the_command_that_started_it(run, finished):
    with pytest.raises(InputError, match="another command: it has no settings 'export'"):
        quantize({}, resume=str(run))
    with pytest.raises(InputError, match="another command: it has a setting"):
        distill({}, resume=str(finished))


def test_images_of_a_quantized_run_come_from_its_bank(finished, tmp_path):
    assert sample({"run": str(finished), "count": 10, "out": str(tmp_path / "images")})["images"] == 10
    with pytest.raises(InputError, match="run of nayer quantize"):
        sample({"run": str(finished), "source": "generator", "out": str(tmp_path / "fresh")})


def test_reconstructed_blocks_are_integers_like_any_others(run, tmp_path):
    changes = {"quantizer.mode": "ptq", "quantizer.reconstruct": True, "quantizer.reconstruct_steps": 3}
    result = quantize(settings(run, tmp_path / "q", **changes, **{"quantizer.reconstruct_batch": 4}))["quantization"]
    assert result["reconstruct"] and result["stages"]["onnxruntime"]["agreement"] is not None
    assert result["onnx"]["integer_convolutions"] == 7 and result["onnx"]["agreement"] == 1.0


def test_four_bits_can_be_stored_as_such(run, tmp_path):
    plain = quantize(settings(run, tmp_path / "int8", **{"quantizer.mode": "ptq"}))["quantization"]["onnx"]
    packed = quantize(settings(run, tmp_path / "int4", **{"quantizer.mode": "ptq", "export.storage": "int4"}))
    onnx = packed["quantization"]["onnx"]
    assert onnx["bytes"] < plain["bytes"]
    assert (onnx["integer_convolutions"], onnx["agreement"]) == (7, 1.0)


def test_rewritten_facts_are_refused_with_a_sentence(finished, tmp_path):
    copytree(finished / "student", tmp_path / "student")
    path = tmp_path / "student/config.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "quantization": {**document["quantization"], "weights": 99}}))
    with pytest.raises(InputError, match="quantization must be an object of weights"):
        load_classifier(ModelConfig(name=str(tmp_path / "student")))


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"quantizer.first_last_bits": 1}, "first_last_bits = 1 is not possible", "0, 2, 3, 4, 5, 6, 7, 8"),
        ({"method.name": "dfq-nagl"}, "no method is called 'dfq-nagl'", "dfq-nagel"),
        ({"teacher.name": "some/model.onnx", "reuse": None}, "is an ONNX file", "nayer eval"),
        ({"quantizer.reconstruct": True}, "is for --mode ptq", "--mode ptq"),
        (
            {"quantizer.reconstruct": True, "method.name": "analytic"},
            "needs images, and analytic makes none",
            "--method zeroq",
        ),
        ({"reuse": "nowhere"}, "nowhere is not a run directory", "runs/"),
    ],
)
def test_wrong_input_is_told(run, tmp_path, changes, message, hint):
    with pytest.raises(InputError, match=message) as caught:
        quantize(settings(run, tmp_path / "q", **changes))
    assert hint in str(caught.value.hint)
    assert not (tmp_path / "q").exists()
