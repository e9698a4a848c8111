import pytest

from nayer_cli.classifiers.inherit import Inherited
from nayer_cli.classifiers.model import load_classifier, new_classifier
from nayer_cli.cli import checks
from nayer_cli.config import DistillConfig, ModelConfig, OptimizerConfig, QuantizeConfig, TrainConfig
from nayer_cli.errors import ConfigError, InputError
from nayer_cli.methods.nayer import Config
from nayer_cli.runs.beginning import begin_with, fitting, paced, sentence
from nayer_cli.runs.distill import distill
from quick import quick

TEACHER = ModelConfig(name="builtin:digits")


@pytest.fixture(scope="module")
def teacher():
    return load_classifier(TEACHER)


def student_of(teacher, name):
    return new_classifier(ModelConfig(name=name), teacher)


def test_a_student_of_the_same_family_begins_with_its_teacher_and_says_so(tmp_path):
    notes = []
    same = {"student.name": "resnet14_digits", "init": "teacher", "schedule.epochs": 1, "schedule.kd_steps": 0}
    result = distill(quick(tmp_path, same), listen=lambda record: notes.append(record.get("message")))
    assert result["student"]["inherited"] == {"parameters": 172_218, "layers": {"": ""}}
    assert result["student"]["agreement"] == 1
    assert "the student begins with 172,218 of 172,218 parameters of its teacher: all layers" in notes


def test_where_nothing_fits_auto_keeps_what_is_there_and_teacher_is_refused(teacher):
    student = student_of(teacher, "resnet8_digits")
    assert begin_with("auto", student, ModelConfig(name="resnet8_digits"), teacher) is None
    assert "weights of its own" in sentence(student, None)
    with pytest.raises(InputError, match=r"no layer of the teacher .* fits into the student 'resnet8_digits'"):
        begin_with("teacher", student, ModelConfig(name="resnet8_digits"), teacher)


def test_weights_that_the_student_brings_are_not_overwritten(teacher):
    spec = ModelConfig(name="resnet14_digits", weights="some.pth")
    assert begin_with("auto", student_of(teacher, "resnet14_digits"), spec, teacher) is None
    with pytest.raises(ConfigError, match="comes with weights of its own"):
        begin_with("teacher", student_of(teacher, "resnet14_digits"), spec, teacher)


@pytest.mark.parametrize(
    ("schema", "settings", "message"),
    [
        (TrainConfig, {"student.name": "wrn_16_2"}, "no teacher is named"),
        (DistillConfig, {"student.weights": __file__}, "both its teacher's weights"),
    ],
)
def test_contradictions_are_told_before_torch(schema, settings, message):
    with pytest.raises(ConfigError, match=message):
        checks.check(schema, {"init": "teacher", **settings})


def test_a_rounded_copy_begins_with_its_model_anyway():
    checks.check(QuantizeConfig, {"init": "teacher", "teacher.name": "builtin:digits"})


def test_a_student_that_is_mostly_its_teachers_learns_slower(teacher):
    student, optimizer = student_of(teacher, "resnet14_digits"), OptimizerConfig(lr=0.5, inherited=0.1)
    rates = [paced(optimizer, student, taken).lr for taken in (None, Inherited({}, 80_000), Inherited({}, 90_000))]
    assert rates == [0.5, 0.5, 0.05]


def test_features_are_left_out_where_auto_finds_no_layer_that_fits():
    settings = Config(features=100.0)
    assert fitting(settings, "auto", None).features == 0
    assert fitting(settings, "own", None) == settings == fitting(settings, "auto", Inherited({"": ""}, 10))
