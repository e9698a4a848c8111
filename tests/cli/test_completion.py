"""Tab, from what each shell asks to what it shows; the shells are started where they are installed."""

import os
import select
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from nayer_cli import plugin_settings, plugins
from nayer_cli.classifiers import names
from nayer_cli.cli import completion

pty = pytest.importorskip("pty", reason="needs pseudo-terminals, which Windows has not")
FOLDER = Path(sys.executable).parent
SHELLS = {
    "bash": (["--norc", "-i"], "bind 'set show-all-if-ambiguous on'; source <(_NAYER_COMPLETE=source_bash nayer)"),
    "zsh": (["-f", "-i"], "autoload -U compinit; compinit -u -D; source <(_NAYER_COMPLETE=source_zsh nayer)"),
    "fish": (["--no-config", "-i"], "_NAYER_COMPLETE=source_fish nayer | source"),
}
PATIENCE = 60
"""Seconds without a word, after which a shell is taken to hang; no test waits for them to pass."""


def press_tab(shell, line, offered, folder):
    """Type `line` and Tab into an interactive shell, and read until it shows `offered`; return all that it showed."""
    options, setup = SHELLS[shell]
    path = f"{FOLDER}{os.pathsep}{os.environ['PATH']}"
    here, there = pty.openpty()
    environment = {**os.environ, "PATH": path, "TERM": "dumb", "HOME": str(folder), "COLUMNS": "80"}
    process = subprocess.Popen([shell, *options], env=environment, preexec_fn=partial(os.login_tty, there))
    os.close(there)
    shown = ""
    try:
        for typed, wanted in ((f"{setup}; echo re''ady\r", "ready"), (f"{line}\t", offered)):
            os.write(here, typed.encode())
            shown = ""
            while wanted not in shown and select.select([here], [], [], PATIENCE)[0]:
                shown += os.read(here, 4096).decode(errors="replace")
    finally:
        process.kill()
        process.wait()
        os.close(here)
    return shown


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("line", "offered"), [("nayer qua", "quantize"), ("nayer distill --teacher mobilenetv2_ci", "mobilenetv2_cifar")]
)
def test_tab_in_each_shell(shell, line, offered, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    shown = press_tab(shell, line, offered, tmp_path)
    assert offered in shown
    assert "error" not in shown


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_script_and_code_0(shell):
    done = subprocess.run([FOLDER / "nayer"], env={**os.environ, "_NAYER_COMPLETE": f"source_{shell}"}, check=True)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("distill --student resnet5", "resnet50"),
        ("distill --teacher bu", "builtin:digits"),
        ("distill --method ", "deepinv"),
        ("distill --preset c", "cifar10"),
        ("distill --encoder s", "sbert"),
        ("distill --amp ", "bf16"),
        ("quantize --bits w4", "w4a8"),
        ("quantize --calibration ", "dfq-nagel"),
        ("distill --set sched", "schedule.epochs="),
        ("distill --set method.g_", "method.g_steps="),
        ("distill --method zeroq --set method.p", "method.patience="),
        ("distill --set bank.policy=", "bank.policy=reservoir"),
        ("embed --set enc", "encoder="),
        ("eval wrn_1", "wrn_16_2"),
        ("eval wrn_16_2 --reference wrn_4", "wrn_40_2"),
    ],
)
def test_values_are_offered(line, offered, nayer, monkeypatch):
    words = f"nayer {line}"
    monkeypatch.setenv("_NAYER_COMPLETE", "complete_fish")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", words)
    ran = nayer()
    assert (ran.code, ran.err) == (0, "")
    assert offered in [line.split("\t")[0] for line in ran.out.splitlines()]


def test_completion_needs_no_torch():
    code = (
        "import sys, os; from nayer_cli.__main__ import main\n"
        "for words in ('distill --teacher r', 'distill --set method.', 'quantize --bits w', 'embed --encoder '):\n"
        "    os.environ['_TYPER_COMPLETE_ARGS'] = 'nayer ' + words; assert main([]) == 0\n"
        "assert not {'torch', 'timm', 'numpy'} & set(sys.modules)"
    )
    asked = {"_NAYER_COMPLETE": "complete_fish", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **asked}, check=True, stdout=subprocess.DEVNULL)


def test_names_are_those_of_timms_registry():
    import timm

    for family in plugins.names("models"):
        plugins.load("models", family)
    assert names.networks() == sorted(timm.list_models())
    assert names.may_exist("tv_resnet34")  # an old name, which timm still takes
    assert not names.may_exist("resnet50x")
    assert set(completion.models("")) >= set(names.OURS)


@pytest.mark.parametrize("name", plugins.names("methods"))
def test_settings_read_alone_are_those_of_the_plugin(name):
    alone = plugin_settings.config_class("methods", name)
    assert vars(alone()) == vars(plugins.load("methods", name).Config())
