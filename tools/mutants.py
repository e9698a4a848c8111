"""Change the code in every small way that mutmut knows, and show the changes that no neighbouring test notices.

Run as `make mutants FILES="src/nayer_cli/losses.py …"`. Of each file only the tests beside it are run: those in
`tests/test_losses.py` and `tests/test_losses_*.py` for `losses.py`. What is changed is a copy, in `.mutants/`.
`equivalent_mutants.toml` lists changes that no test can notice, and why.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPY = ROOT / ".mutants"
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.toml")
KEPT = ("staticmethod", "classmethod")
"""Decorators that mutmut can deal with."""


def main(files: list[str]) -> int:
    """Examine files one by one; return how many changes were missed."""
    return sum(examine(Path(file).resolve().relative_to(ROOT)) for file in files)


def examine(file: Path) -> int:
    """Change one file, print what came of it, and return how many changes were missed."""
    tests = tests_beside(file)
    if not tests:
        sys.exit(f"{file} has no tests beside it")
    prepare(file, tests)
    mutmut("run", "--max-children", "1", show=True)
    mutmut("export-cicd-stats")
    total = json.loads((COPY / "mutants" / "mutmut-cicd-stats.json").read_text())["total"]
    changes = [change(mutmut("show", name)) for name in unnoticed()]
    missed = [(before, after) for before, after in changes if not is_equivalent(file, after)]
    for before, after in missed:
        print(f"- {before}\n+ {after}")
    equivalent, noticed = len(changes) - len(missed), total - len(changes)
    print(f"{file}: {total} mutants, {noticed} noticed, {equivalent} equivalent, {len(missed)} missed")
    return len(missed)


def is_equivalent(file: Path, line: str) -> bool:
    """Say whether a changed line is in the list of those that no test can notice; `…` there stands for anything."""
    known = tomllib.loads(EQUIVALENT.read_text()).get(file.relative_to("src/nayer_cli").as_posix(), {})
    return any(re.fullmatch(".*".join(map(re.escape, entry.split("…"))), line) for entry in known)


def tests_beside(file: Path) -> list[str]:
    """Return the test files that mirror a file of the package."""
    folder = Path("tests") / file.relative_to("src/nayer_cli").parent
    found = [*(ROOT / folder).glob(f"test_{file.stem}.py"), *(ROOT / folder).glob(f"test_{file.stem}_*.py")]
    return sorted(str(path.relative_to(ROOT)) for path in found)


def prepare(file: Path, tests: list[str]) -> None:
    """Copy the project, and tell mutmut there which file to change and which tests to run."""
    shutil.rmtree(COPY, ignore_errors=True)
    for folder in ("src", "tests"):
        shutil.copytree(ROOT / folder, COPY / folder, ignore=shutil.ignore_patterns("__pycache__"))
    options = f"only_mutate = {json.dumps([str(file)])}\npytest_add_cli_args_test_selection = {json.dumps(tests)}\n"
    table = "[tool.mutmut]\n"
    (COPY / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text().replace(table, table + options))
    (COPY / file).write_text(undecorated((ROOT / file).read_text()))


def undecorated(source: str) -> str:
    """Turn `@d` above `def f` into `f = d(f)` below it: mutmut leaves functions with decorators alone."""
    lines = source.splitlines(keepends=True)
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    for function in sorted(functions, key=lambda node: node.lineno, reverse=True):
        decorators = [ast.unparse(decorator) for decorator in function.decorator_list]
        if not decorators or set(decorators) & set(KEPT) or any(name.endswith(".setter") for name in decorators):
            continue
        wrapped = function.name
        for decorator in reversed(decorators):
            wrapped = f"{decorator}({wrapped})"
        lines.insert(function.end_lineno or 0, f"{' ' * function.col_offset}{function.name} = {wrapped}\n")
        del lines[function.decorator_list[0].lineno - 1 : function.lineno - 1]
    return "".join(lines)


def unnoticed() -> list[str]:
    """Return the names of the mutants that survived, or that no test runs."""
    lines = [line.strip().partition(": ") for line in mutmut("results").splitlines()]
    return [name for name, _, status in lines if status in ("survived", "no tests")]


def change(difference: str) -> tuple[str, str]:
    """Return the lines before and after a change, each as one line."""
    sides = {sign: re.findall(rf"^\{sign}(?!\{sign})(.*)$", difference, re.MULTILINE) for sign in "-+"}
    before, after = (" ".join(line.strip() for line in sides[sign]) for sign in "-+")
    return before, after


def mutmut(*arguments: str, show: bool = False) -> str:
    """Run a command of mutmut in the copy and return what it prints."""
    # Plug-ins of pytest that the tests do not need would be loaded again for every mutant.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    output = None if show else subprocess.PIPE
    command = [str(Path(sys.executable).with_name("mutmut")), *arguments]
    done = subprocess.run(command, cwd=COPY, env=environment, check=True, stdout=output, text=True)
    return done.stdout or ""


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
