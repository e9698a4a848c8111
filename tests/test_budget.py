import pytest

from nayer_cli.budget import Budget, parse_budget
from nayer_cli.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "counts", "amount"),
    [
        ("90s", "seconds", 90),
        ("1.5h", "seconds", 5400),
        (" 20 m ", "seconds", 1200),
        ("20cpu-m", "processor seconds", 1200),
        ("450000images", "images", 450_000),
        ("2E15flop", "flop", 2e15),
        ("2e+15flop", "flop", 2e15),
    ],
)
def test_a_budget_is_a_number_with_a_unit(text, counts, amount):
    assert parse_budget(text) == Budget(text.strip(), counts, amount)


@pytest.mark.parametrize("text", ["", "20", "m", "-5m", "0m", "1e999m", "nan m", "20 minutes", "5 parsecs", "1h30m"])
def test_what_is_no_budget_is_told_with_what_is(text):
    with pytest.raises(ConfigError, match=r"not a budget.*images|out of range"):
        parse_budget(text)
