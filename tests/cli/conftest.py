"""Run commands as the shell does, but in this process."""

import os
from collections.abc import Callable
from typing import NamedTuple

import pytest

from nayer_cli.__main__ import main


class Ran(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away the settings of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("NAYER_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def nayer(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """`nayer("embed", "--json")` gives the exit code, stdout and stderr."""

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Ran(code, *capsys.readouterr())

    return run
