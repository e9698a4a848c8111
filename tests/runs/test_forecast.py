from dataclasses import replace

import pytest

from nayer_cli.config import BankConfig, DistillConfig, EvalConfig, OutputConfig, QuantizeConfig, ScheduleConfig
from nayer_cli.engine import Plan
from nayer_cli.runs import forecast
from nayer_cli.runs.distill import distill
from nayer_cli.runs.forecast import Costs, Work, duration, sentence, total, work_of
from nayer_cli.runs.train import train
from nayer_cli.types import ImageShape
from quick import quick

SHAPE = ImageShape(3, 10, 10)
PLAN = Plan(epochs=20, warmup_epochs=2, cycles=1, rounds=3, warmup_rounds=5, kd_steps=7)
CONFIG = DistillConfig(
    method={"name": "nayer", "batch": 10, "g_steps": 4},
    schedule=ScheduleConfig(batch_size=8),
    eval=EvalConfig(every=10),
    output=OutputConfig(keep=2),
)


def test_work_counts_images_and_their_steps():
    found = work_of(CONFIG, PLAN, measured=50)
    made = 10 * (2 * 5 + 20 * 3)
    assert found == Work(synthesis=4 * made, student=20 * 7 * 8, calibration=0, evaluation=4 * 50, kept=made)
    quantized = work_of(QuantizeConfig(method=CONFIG.method), replace(PLAN, epochs=0), measured=50, images=5)
    assert (quantized.calibration, quantized.student, quantized.kept) == (105, 0, 105)


def test_the_whole_is_work_times_costs():
    work, costs = Work(100, 200, 10, 50, kept=1000), Costs(2.0, 1.0, 3.0, 0.5, checkpoint=10_000)
    found = total(CONFIG, work, costs, SHAPE, memory=7)
    assert found["seconds"] == {
        "synthesis": 200,
        "student": 200,
        "calibration": 30,
        "evaluation": 25,
        "total": 455,
    }
    assert (found["memory"], found["disk"]) == (7, 1000 * 300 + 3 * 10_000)


@pytest.mark.parametrize(
    ("bank", "images"),
    [(BankConfig(capacity=10), 10), (BankConfig(place="disk"), 2000), (BankConfig(budget_gb=1e-6), 2000)],
)
def test_a_bank_in_a_file_is_there_twice(bank, images):
    found = total(replace(CONFIG, bank=bank), Work(kept=1000), Costs(), SHAPE, None)
    assert found["disk"] == images * 300


def test_a_forecast_is_one_line():
    found = {"seconds": {"synthesis": 7200.0, "student": 0.0, "total": 7200.0}, "memory": 3_900_000_000, "disk": 10**9}
    assert sentence(found) == (
        "this run will take about 2 h 0 min here (synthesis 2 h 0 min), 3.9 GB of memory at most, and 1 GB on disk"
    )


@pytest.mark.parametrize(
    ("seconds", "text"), [(3, "3 s"), (100, "2 min"), (5400, "1 h 30 min"), (400_000, "4 days 15 h")]
)
def test_a_length_of_time_has_two_units(seconds, text):
    assert duration(seconds) == text


def test_short_runs_are_not_worth_a_forecast():
    assert not forecast.is_worth_it(Work(1000, 1000), ImageShape(3, 32, 32))
    assert forecast.is_worth_it(Work(1000, 1000), ImageShape(3, 224, 224))


def test_a_forecast_leaves_nothing_of_itself_in_a_run(tmp_path, monkeypatch):
    plain = distill(quick(tmp_path, {"output.out": str(tmp_path / "plain")}))
    monkeypatch.setattr(forecast, "WORTH", 0)
    heard = []
    told = distill(quick(tmp_path, {"output.out": str(tmp_path / "told")}), listen=heard.append)
    assert "this run will take about" in next(record["message"] for record in heard if record["event"] == "note")
    same = ("teacher", "student", "images")
    assert [plain[key] for key in same] == [told[key] for key in same]
    assert (tmp_path / "plain/student/model.safetensors").read_bytes() == (
        tmp_path / "told/student/model.safetensors"
    ).read_bytes()


def test_a_forecast_of_training_takes_its_steps_back(tmp_path, monkeypatch):
    settings = {"student.name": "resnet8_digits", "data": "digits", "schedule.epochs": 1, "device": "cpu"}
    train({**settings, "output.out": str(tmp_path / "plain")})
    monkeypatch.setattr(forecast, "WORTH", 0)
    heard = []
    train({**settings, "output.out": str(tmp_path / "told")}, listen=heard.append)
    assert any("this run will take about" in record.get("message", "") for record in heard)
    assert (tmp_path / "plain/student/model.safetensors").read_bytes() == (
        tmp_path / "told/student/model.safetensors"
    ).read_bytes()
