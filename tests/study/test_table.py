import pytest

from nayer_cli.errors import InputError
from nayer_cli.study.plan import read
from nayer_cli.study.table import collect, difference


def runs(*values: tuple[int, float | None]) -> list:
    return [{"seed": seed, "value": value} for seed, value in values]


@pytest.mark.parametrize("found", ['{"student": 3}', '{"student": {}}', '{"student": {"top1": "x"}, "seconds": 1}'])
def test_a_result_without_its_figures_is_damaged(tmp_path, found):
    (tmp_path / "s.toml").write_text("[rows.a]\n")
    (tmp_path / "a/seed-0").mkdir(parents=True)
    (tmp_path / "a/seed-0/result.json").write_text(found)
    with pytest.raises(InputError, match=r"result\.json is damaged"):
        collect(read(str(tmp_path / "s.toml"), None, None, {}), tmp_path)


def test_differences_are_paired_by_seed_with_an_interval_of_students_t():
    first = runs((0, 0.90), (1, 0.80), (2, 0.70), (9, 0.0))
    found = difference(first, runs((2, 0.73), (0, 0.91), (1, 0.82), (5, 1.0)))
    assert (found["n"], found["mean"]) == (3, pytest.approx(0.02))
    half = 4.302653 * 0.01 / 3**0.5  # of two degrees of freedom
    assert (found["low"], found["high"]) == (pytest.approx(0.02 - half), pytest.approx(0.02 + half))


def test_one_pair_has_no_interval_and_none_no_difference():
    assert difference(runs((0, 0.5)), runs((0, 0.25))) == {"n": 1, "mean": -0.25, "low": None, "high": None}
    assert difference(runs((0, 0.5)), runs((1, 0.5))) is None
    assert difference(runs((0, None)), runs((0, 0.5))) is None
