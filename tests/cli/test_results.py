import pytest

from nayer_cli.cli import results
from nayer_cli.errors import GateMissed

RUN = {
    "run": "runs/one",
    "teacher": {"name": "big", "parameters": 2000, "top1": 0.9, "top5": 0.99, "ci95": [0.88, 0.92]},
    "student": {
        "name": "small",
        "parameters": 1000,
        "top1": 0.8,
        "top5": 0.98,
        "ci95": [0.78, 0.82],
        "agreement": 0.85,
        "agreement_on": "evaluation data",
    },
    "best_oracle": {"top1": 0.81, "epoch": 3},
    "seconds": {"total": 3725.4},
    "gates": [],
}
MEASURED = {
    "model": "small",
    "top1": 0.8,
    "top5": 0.98,
    "ci95": [0.78, 0.82],
    "loss": 0.5,
    "ece": 0.01,
    "n": 1000,
    "agreement": None,
    "drop": 0.1,
    "parameters": 1000,
    "input_size": [3, 224, 240],
    "preparation": {"interpolation": "bicubic", "crop_pct": 0.875, "crop_mode": "squash"},
}


def test_a_run_is_a_table_of_teacher_and_student():
    rows = {name: cells for name, *cells in results.run_rows(RUN)}
    assert rows["top-1"] == ["90.00 %", "80.00 %"]
    assert rows["parameters"] == ["2,000", "1,000"]
    assert rows["agreement on evaluation data"] == ["", "85.00 %"]
    assert rows["time"] == ["", "1:02:05"]


def test_a_run_without_evaluation_data_says_so():
    student = {"name": "s", "parameters": 1, "agreement": 0.9, "agreement_on": "held-back synthetic images"}
    rows = {name: cells for name, *cells in results.run_rows(RUN | {"student": student, "teacher": None})}
    assert rows["top-1"] == ["–", "–"]
    assert rows["agreement on held-back synthetic images, not accuracy"] == ["", "90.00 %"]


def test_images_that_were_left_out_are_shown():
    student = RUN["student"] | {"n": 1990, "skipped": 10}
    rows = {name: cells for name, *cells in results.run_rows(RUN | {"student": student})}
    assert rows["images"] == ["–", "1,990 (10 unreadable left out)"]
    _, row = results.evaluation_rows({"reference": None, "results": [MEASURED | {"skipped": 10}]})
    assert "1,000 (10 unreadable left out)" in row
    assert "1,000" in results.evaluation_rows({"reference": None, "results": [MEASURED | {"skipped": 0}]})[1]


def test_a_measurement_tells_how_pictures_were_prepared():
    heading, row = results.evaluation_rows({"reference": None, "results": [MEASURED]})
    assert (heading[-1], row[-1]) == ("prepared", "224×240, bicubic, crop 0.875, squash")


@pytest.mark.parametrize(("layers", "words"), [(20, "20"), (0, "none: total variation instead"), (None, "–")])
def test_what_replaces_the_statistics_of_the_teacher_is_shown(layers, words):
    rows = {name: cells for name, *cells in results.run_rows(RUN | {"teacher": RUN["teacher"] | {"bn_layers": layers}})}
    assert rows["BatchNorm layers compared"] == [words, ""]


def test_a_dry_run_shows_the_settings_that_it_would_have():
    rows = results.run_rows(RUN | {"dry_run": True, "config": {"seed": 3}})
    assert ("seed", "3") in rows


def test_a_comparison_begins_with_the_reference():
    document = {"reference": MEASURED | {"model": "big", "drop": None}, "results": [MEASURED]}
    headings, first, second = results.evaluation_rows(document)
    assert (first[0], second[0]) == ("big", "small")
    assert dict(zip(headings, second, strict=True))["95 % interval"] == "78.00 to 82.00 %"
    assert len(results.evaluation_rows(document | {"reference": None})) == 2


def test_a_missed_gate_is_raised_with_its_figures():
    gate = {"model": "small", "metric": "top1", "op": ">=", "threshold": 0.9, "value": 0.8, "passed": False}
    with pytest.raises(GateMissed, match=r"top1 of small is 0.8000, but >= 0.9 is wanted") as caught:
        results.check_gates({"gates": [gate, gate | {"passed": True}]})
    assert caught.value.exit_code == 1
    results.check_gates({"gates": [gate | {"passed": True}]})


def test_a_missed_gate_names_its_stage_and_never_looks_met():
    gate = {"metric": "drop", "op": "<=", "threshold": 0.02, "value": 0.02001, "passed": False, "stage": "onnxruntime"}
    with pytest.raises(GateMissed, match=r"drop of 'ONNX Runtime' is 0.02001, but <= 0.02 is wanted"):
        results.check_gates({"gates": [gate]})


def test_a_missing_extra_comes_with_the_command_that_adds_it():
    document = {
        "nayer": "1",
        "python": "3",
        "platform": "x",
        "packages": {"torch": None},
        "extras": {"doc2vec": {"gensim": None}, "report": {"matplotlib": "3.8"}},
        "problems": [{"what": "broken", "mend": "mend it"}],
        "processor": {"VNNI": "no: add"},
        "devices": [],
        "caches": {},
        "methods": ["a", "b"],
    }
    rows = {name.strip(): value for name, value in results.installation_rows(document)[1:]}
    assert rows["torch"] == "missing"
    assert rows["extra doc2vec"] == "missing: pip install 'nayer-cli[doc2vec]'"
    assert (rows["extra report"], rows["methods"]) == ("matplotlib 3.8", "a, b")
    assert rows["problem"] == "broken; fix: mend it"
    assert rows["processor: VNNI"] == "no: add"


def test_a_quantized_model_is_shown_stage_by_stage():
    onnx = {"bytes": 56888, "storage": "int8", "agreement": 1.0}
    onnx |= {"integer_convolutions": 6, "convolutions": 7, "integer_products": 1, "products": 1}
    kept = [{"name": name, "what": "SiLU", "reason": "a curve"} for name in ("act1", "act2")]
    stages = {"float": {"top1": 0.9, "n": 10}, "onnxruntime": {"top1": 0.8, "n": 10, "agreement": 0.85}}
    result = {
        "quantization": {"stages": stages, "kept_float": kept, "onnx": onnx},
        "student": {"name": "net w4a4", "parameters": 1000},
        "seconds": {"total": 61.0},
        "run": "runs/q",
    }
    rows = {name: values for name, *values in results.quantization_rows(result)}
    assert rows["float"][0] == "90.00 %"
    assert rows["ONNX Runtime"] == ["80.00 %", "–", "10", "85.00 %"]
    assert rows["kept float"][0] == "2 × SiLU: a curve"
    assert rows["run as integers"][0] == "6 of 7 convolutions, 1 of 1 matrix products"
