import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time

import pytest

import nayer_cli
from nayer_cli.__main__ import main

NAYER = (sys.executable, "-m", "nayer_cli")


def start(*arguments, **options):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NAYER_")}
    return subprocess.Popen(
        [*NAYER, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment | options.pop("env", {}),
        **options,
    )


def open_when_read(pipe, seconds=60):
    """Open a named pipe for writing as soon as somebody reads it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        time.sleep(0.02)
    pytest.fail("nobody reads the pipe")


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["distill", "--help"], ["eval", "-h"], ["--version"]])
def test_help_is_on_stdout_and_fine(arguments, capsys):
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert "distill" in out or "MODEL" in out or nayer_cli.__version__ in out
    assert err == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["distil"], "distil"),
        (["distill", "--epohcs", "3"], "--epochs"),
        (["distill", "--epochs", "many"], "--epochs"),
        (["distill", "--set", "adv"], "KEY=VALUE"),
        (["sample"], "RUN"),
    ],
)
def test_wrong_usage_is_two_lines_on_stderr(arguments, words, capsys):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert err.startswith("error: ")
    assert "hint: " in err
    assert "Traceback" not in err


def test_nothing_given_shows_the_help(capsys):
    assert main([]) in (0, 2)  # by the version of Typer
    assert "Commands" in capsys.readouterr().out


def test_help_comes_at_once_and_without_torch():
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        done = subprocess.run([*NAYER, "--help"], capture_output=True, check=True)
        seconds.append(time.perf_counter() - began)
    assert statistics.median(seconds) < 2.5  # 0.4 on a quiet machine
    code = "import sys; from nayer_cli.__main__ import main; main(['distill', '--help']); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    loaded = done.stdout.splitlines()[-1]
    for heavy in ("torch", "timm", "numpy", "sentence_transformers", "rich.live", "nayer_cli.runs.distill"):
        assert f"'{heavy}'" not in loaded


@pytest.mark.skipif(sys.platform == "win32", reason="needs named pipes and POSIX signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_command_with_their_code(number, code, tmp_path):
    pipe = tmp_path / "my.toml"
    os.mkfifo(pipe)
    process = start("distill", "--config", str(pipe))
    writer = open_when_read(pipe)  # the command reads on until it is closed
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    os.close(writer)
    assert process.returncode == code
    assert err == f"error: {'interrupted' if code == 130 else 'terminated'}\n"


@pytest.mark.parametrize("arguments", [["info", "--methods"], ["info", "--methods", "--json"], ["--help"]])
def test_a_closed_pipe_is_quiet_and_no_missed_gate(arguments):
    process = start(*arguments)
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(timeout=60) == 141
    assert err == ""


def test_a_terminal_without_arrows_does_not_end_a_command():
    process = start("info", "--methods", env={"PYTHONIOENCODING": "ascii"})
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "nayer" in out
