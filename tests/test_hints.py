"""Every hint can be typed: its commands and options are there, and take the values that it names."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import nayer_cli
from nayer_cli import config, errors
from nayer_cli.cli import app
from nayer_cli.cli.checks import method_keys
from nayer_cli.config import DistillConfig, QuantizeConfig, TrainConfig
from nayer_cli.errors import NayerError
from nayer_cli.plugins import own

SOURCES = sorted(Path(nayer_cli.__file__).parent.rglob("*.py"))
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+( [^\s,;)]+)?")
STAND_IN = "7"
KEYS = {key for schema in (DistillConfig, QuantizeConfig, TrainConfig) for key in config.keys(schema)}
KEYS |= {key for method in own("methods") for key in method_keys(method)}


def hints(file: Path) -> Iterator[str]:
    """Yield the texts of a file's hints, also those that stand in a constant of the module; `{…}` becomes a number."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "hint":
            yield from texts(node.value, constants)


def texts(node: ast.AST, constants: dict[str, ast.expr]) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else STAND_IN for part in node.values)
    elif isinstance(node, ast.Name) and node.id in constants:
        yield from texts(constants[node.id], {})
    else:
        for part in ast.iter_child_nodes(node):
            yield from texts(part, constants)


def complaint(command: str, words: list[str]) -> str:
    """Say what a command finds wrong in these words; that others are missing is nothing wrong."""
    try:
        COMMANDS[command].make_context(command, list(words))
    except Exception as error:
        return "" if type(error).__name__ in ("MissingParameter", "Exit") else str(error) or type(error).__name__
    return ""


def typed(text: str) -> Iterator[list[str]]:
    """Yield the words of each of our commands in a text; it ends where prose goes on in small letters."""
    for found in re.finditer(r"\bnayer (7|COMMAND|[a-z]+)([^,;)]*)", text):
        words = [found[1] if found[1] in COMMANDS else "distill" if found[1] in (STAND_IN, "COMMAND") else found[1]]
        for word in shlex.split(found[2].replace("'", '"') if found[2].count("'") % 2 == 0 else ""):
            is_value = words[-1].startswith("--")
            if word == words[-1] == STAND_IN:  # the second one stands for an option
                break
            if not (is_value or word.startswith(("--", ".", STAND_IN, "*")) or word.isupper() or "/" in word):
                break
            words.append(word)
        yield words


HINTS = sorted({hint for file in SOURCES for hint in hints(file)})


ERRORS = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, NayerError)}
WITHOUT_HINT = {
    "faults.py: NayerError",  # a bug: the hint is added with the name of a file
    "faults.py: Interrupted",  # the command adds how to continue
    "engine.py: Interrupted",
    "results.py: GateMissed",  # whoever set the gate knows what it is for
}


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.stem)
def test_every_error_says_what_to_type_next(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS:
            hint = next((one.value for one in node.keywords if one.arg == "hint"), ast.Constant(None))
            is_given = not any(isinstance(part, ast.Constant) and part.value is None for part in ast.walk(hint))
            assert is_given or f"{file.name}: {node.func.id}" in WITHOUT_HINT, f"line {node.lineno}: {node.func.id}"


def test_there_are_hints_of_every_kind():
    assert len(HINTS) > 80
    assert sum("nayer " in hint for hint in HINTS) > 10 and sum("--" in hint for hint in HINTS) > 40


@pytest.mark.parametrize("hint", [hint for hint in HINTS if "nayer " in hint])
def test_commands_in_hints_can_be_typed(hint):
    for command, *words in typed(hint):
        if command in ("saved", "or"):  # prose: "that nayer saved"
            continue
        assert command in COMMANDS, f"there is no nayer {command}"
        assert complaint(command, words) == ""


@pytest.mark.parametrize("hint", [hint for hint in HINTS if "--" in hint and "pip " not in hint])
def test_options_in_hints_are_there_and_take_the_values_that_are_named(hint):
    for found in OPTION.finditer(hint):
        option, *value = found[0].split()
        words = [option, *value] if value and re.match(r"[^a-z]|off\b|auto\b|[a-z]+\d", value[0]) else [option]
        answers = [complaint(command, words) for command in COMMANDS]
        needs_a_value = [answer for answer in answers if "requires an argument" in answer]
        assert option == "--help" or "" in answers or needs_a_value, answers
    for key in re.findall(r"--set ([\w.]+)", hint):
        assert key in KEYS or key == "KEY"
