import os
import shlex
import signal
import subprocess
import sys
import threading

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


def open_when_read(pipe, process):
    """Open a named pipe for writing, which waits until the process reads it or ends."""

    def let_go():
        process.wait()
        os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))

    threading.Thread(target=let_go, daemon=True).start()
    return os.open(pipe, os.O_WRONLY)


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


CASES = [
    ("--help", 0),
    ("distill --help", 0),
    ("info --methods", 0),
    ("info --models wrn_*", 0),
    ("distill --method neyer", 2),
    ("distill --method zeroq --set method.adv=1", 2),
    ("distill --preset cifar", 2),
    ("distill --encoder clipp", 2),
    ("distill --epochs -1", 2),
    ("distill --set g_steps=3", 2),
    ("distill --set method.g_stps=3", 2),
    ("distill --teacher resnet5O", 2),
    ("distill --teacher-weights nowhere.pth", 2),
    ("distill --labels nowhere.txt", 2),
    ("distill --lte nowhere.safetensors", 2),
    ("distill --eval-data nowhere", 2),
    ("distill --resume nowhere", 2),
    ("distill --config nowhere.toml", 2),
    ("distill --device cudo", 2),
    ("distill --device cuda:99", 3),
    ("quantize --bits w4", 2),
    ("quantize --method neyer", 2),
    ("quantize --generator nowhere", 2),
    ("train --model wrn_40_3 --data digits", 2),
    ("train --model wrn_40_2 --data nowhere", 2),
    ("eval wrn_40_3 --data digits", 2),
    ("eval resnet18 --reference resnet5O --data digits", 2),
    ("sample nowhere", 2),
    ("embed --labels nowhere.txt", 2),
    ("distill --set method.generator=wrong", 2),
    ("distill --method dfq --set method.generator=standard", 2),
    ("distill --method kakr --set method.generator=native", 2),
    ("distill --set method.generator=nowhere.mlp", 2),
    ("quantize --set method.generator=wrong", 2),
    ("quantize --bits w4a4", 2),
    ("distill --method nowhere.noise", 2),
    ("distill --encoder wrong", 3),
    ("distill --encoder py:nowhere.letters", 2),
    ("distill --encoder onehot:3", 2),
    ("embed --labels digits --encoder doc2vec:nowhere", 2),
    ("embed --labels digits --encoder clip", 3),
    ("distill --teacher py:nowhere:net", 2),
    ("train --model py:nowhere:net --data digits", 2),
    ("eval py:net --data digits", 2),
    ("eval builtin:nowhere --data digits", 2),
    ("eval local-dir:nowhere --data digits", 2),
    ("eval runs/nowhere --data digits", 2),
    ("eval hf:org/name --data digits", 2),
    ("eval hf-hub:org/name --data digits", 3),
    ("export resnet18", 2),
    ("study own.toml", 2),
]
OWN_STUDY = "[rows.one]\nmethod.generator = 'wrong'\n"


def test_what_can_be_told_at_once_is_told_without_importing_torch(tmp_path, hub_cache):
    (tmp_path / "own.toml").write_text(OWN_STUDY)
    code = (
        "import sys; from nayer_cli.__main__ import main\n"
        f"got = [main(line.split()) for line, _ in {CASES}]\n"
        f"assert got == {[code for _, code in CASES]}, got\n"
        "from nayer_cli.runs import info; assert info.describe_packages()['nayer']\n"  # what nayer info shows first
        "print(sorted({'torch', 'timm', 'torchvision', 'sentence_transformers', 'sklearn'} & set(sys.modules)))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NAYER_")}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(hub_cache)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir() if path != hub_cache] == ["own.toml"]


def test_a_help_page_needs_neither_numpy_nor_the_display():
    code = "import sys; from nayer_cli.__main__ import main; main(['distill', '--help']); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    loaded = done.stdout.splitlines()[-1]
    for heavy in ("torch", "numpy", "PIL", "rich.live", "nayer_cli.runs.distill", "huggingface_hub", "http.client"):
        assert f"'{heavy}'" not in loaded


def test_a_missing_folder_of_images_is_told_without_numpy():
    code = (
        "import sys; from nayer_cli.__main__ import main\n"
        "assert main(['distill', '--eval-data', 'nowhere/val']) == 2\n"
        "assert main(['train', '--model', 'wrn_16_1', '--data', 'nowhere']) == 2\n"
        "print(sorted({'torch', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "there is no data 'nowhere/val'" in done.stderr


def test_a_limit_of_memory_that_torch_cannot_live_with_is_told(monkeypatch, capsys):
    resource = pytest.importorskip("resource", reason="Windows has no such limits")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (3_000_000 * 1024, resource.RLIM_INFINITY))
    assert main(["distill"]) == 3
    assert "ulimit -v" in capsys.readouterr().err


def test_a_variable_is_blamed_for_its_value(monkeypatch, capsys):
    monkeypatch.setenv("NAYER_EPOCHS", "many")
    assert main(["distill"]) == 2
    assert "NAYER_EPOCHS=many" in capsys.readouterr().err
    assert main(["distill", "--epochs", "few"]) == 2
    assert "'--epochs'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--set g_steps=3", "did you mean 'method.g_steps'"),
        ("--method zeroq --set method.g_life=1", "; nayer has"),
        ("--method zeroq --set method.bn_momentum=0", " and nayer have"),
        ("--encoder clipp", "did you mean 'clip'"),
        ("--teacher resnet5O", "did you mean 'resnet50'"),
    ],
)
def test_a_slip_is_told_with_what_was_meant(words, told, capsys):
    assert main(["distill", *words.split()]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="needs named pipes and POSIX signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_command_with_their_code(number, code, tmp_path):
    pipe = tmp_path / "my.toml"
    os.mkfifo(pipe)
    process = start("distill", "--config", str(pipe))
    writer = open_when_read(pipe, process)  # the command reads on until it is closed
    process.send_signal(number)
    _, err = process.communicate()
    os.close(writer)
    assert process.returncode == code
    assert err == f"error: {'interrupted' if code == 130 else 'terminated'}\n"


@pytest.mark.parametrize("arguments", [["info", "--methods"], ["info", "--methods", "--json"], ["--help"]])
def test_a_closed_pipe_is_quiet_and_no_missed_gate(arguments):
    with start(*arguments) as process:
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait() == 141
    assert err == ""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize(
    ("closed", "code", "err"),
    [
        (">&-", 3, "error: standard output is closed\nhint: send it somewhere, such as > result.json\n"),
        ("2>&-", 0, ""),
        ("<&-", 0, ""),
        (">&- 2>&-", 3, ""),
    ],
)
def test_closed_standard_files(closed, code, err):
    line = f"{shlex.join(NAYER)} info --methods --json {closed}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, err)
    assert bool(done.stdout) == (code == 0) and "Traceback" not in done.stdout


EVIL = "open('was_here', 'w').write('x')\n"
NAMES = ("../evil", "../evil.py", "py:../evil", "py:..evil:net", "/tmp/../evil", "..evil", "a/../../evil")


@pytest.mark.parametrize(
    ("command", "option"),
    [
        *(("distill", option) for option in ("--method", "--encoder", "--teacher", "--preset", "--labels")),
        *(("distill", f"--set=method.{key}") for key in ("generator",)),
        *(("quantize", option) for option in ("--method", "--model", "--preset")),
        *(("train", "--data"), ("sample", ""), ("eval", "")),
    ],
)
def test_a_name_that_climbs_out_of_its_folder_runs_nothing(command, option, tmp_path, monkeypatch, capsys):
    (tmp_path / "inside").mkdir()
    (tmp_path / "evil.py").write_text(EVIL)
    monkeypatch.chdir(tmp_path / "inside")
    for name in NAMES:
        words = [f"{option}={name}"] if "=" in option else [option, name] if option else [name]
        assert main([command, *words]) == 2, name
        assert "Traceback" not in capsys.readouterr().err
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "evil.py"]


def test_a_terminal_without_arrows_does_not_end_a_command():
    process = start("info", "--methods", env={"PYTHONIOENCODING": "ascii"})
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert "nayer" in out
