"""Write `commands.md` and `settings.md` of `docs/reference` from the program itself: `python tools/write_docs.py`."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from typer.main import get_command

from nayer_cli import cli, config, plugin_settings, plugins
from nayer_cli.runs.documents import BenchResult, EvalResult, Exported, Result, Sampled
from nayer_cli.study import ledger
from nayer_cli.study.compare import Comparison
from nayer_cli.study.table import Table

DOCS = Path(__file__).resolve().parents[1] / "docs" / "reference"
LEDGER = DOCS.parents[1] / "results"
WRITTEN = "<!-- Written by tools/write_docs.py: change the program, not this page. -->"

COMMANDS_INTRODUCTION = """\
Every option of every command. `--set KEY=VALUE` sets what has no option; [settings](settings.md) lists everything.

**Precedence**, highest first: command line, `NAYER_*` variables, configuration file (`--config`), preset. Each option
has a variable, and `NAYER_SET` takes assignments like `--set`: `NAYER_SET='method.adv=1.0 lte.prompt="a {name}"'`.
Unknown options, settings and variables are refused. With `--resume`, settings come from the run directory, and
only the command line can add to them.

**Output.** The result goes to stdout: a small table, or one JSON document with `--json`. Progress, notes and errors go
to stderr: a live display on a terminal, elsewhere one line for each epoch. With `--quiet`, only warnings and errors.
`NO_COLOR` and `TERM=dumb` turn colour off.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | a gate (`--min-top1`, `--max-drop`) was not met; the result is still written and printed |
| 2 | usage, configuration or input is wrong |
| 3 | the machine lacks something: an extra, a cached model, a device, memory |
| 4 | the run failed |
| 70 | a bug of ours |
| 130, 141, 143 | Ctrl-C, closed pipe, SIGTERM |
"""

SETTINGS_INTRODUCTION = """\
Every setting with its meaning, default and possible values. [Words](../concepts/overview.md#words) such as round and
warm-up are those of the overview. Use `--set schedule.epochs=100`, or a file for `--config`:

```toml
preset = "cifar10"

[schedule]
epochs = 100
```

Values are TOML. On the command line, text needs no quotes, and a list may be written `0.5,0.5,0.5`. The defaults of
`distill` are those without a preset.
"""


FIRST = "distill"
"""The command whose options and settings are all described; those of the others are where they differ."""


def pages() -> dict[Path, str]:
    """Return the text of each page."""
    return {
        DOCS / "commands.md": "\n".join(["# Commands", "", WRITTEN, "", COMMANDS_INTRODUCTION, *_commands()]),
        DOCS / "settings.md": "\n".join(["# Settings", "", WRITTEN, "", SETTINGS_INTRODUCTION, *_settings()]),
        DOCS.parent / "project" / "results.md": ledger.page(ledger.read(LEDGER)),
    }


def schemas() -> dict[Path, str]:
    """Return the JSON Schema of each document that commands write, and of each configuration file."""
    types = {"result": Result, "eval": EvalResult, "sample": Sampled, "export": Exported, "bench": BenchResult}
    types |= {"table": Table, "comparison": Comparison}
    found = {name: TypeAdapter(kind).json_schema() for name, kind in types.items()}
    for name, command in cli.COMMANDS.items():
        if schema := getattr(command, "SCHEMA", None):
            found[f"{name}.config"] = _described(TypeAdapter(schema).json_schema(), schema)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {
        DOCS / "schemas" / f"{name}.schema.json": json.dumps(head | schema, indent=1, ensure_ascii=False) + "\n"
        for name, schema in found.items()
    }


def _described(schema: dict[str, Any], config_class: type[Any]) -> dict[str, Any]:
    """Add to a configuration's schema what its settings mean and which values they admit."""
    for key, about in config.describe(config_class):
        *sections, name = key.split(".")
        table = schema
        for section in sections:
            table = schema["$defs"][table["properties"][section]["$ref"].rpartition("/")[2]]
        limits = {"minimum": about.get("low"), "exclusiveMinimum": about.get("above"), "maximum": about.get("high")}
        values = {"description": about.get("help"), "enum": about.get("choices")} | limits
        table["properties"][name] |= {key: value for key, value in values.items() if value is not None}
        table["additionalProperties"] = False
    return schema


def _commands() -> Iterator[str]:
    commands: dict[str, Any] = get_command(cli.app).commands  # type: ignore[attr-defined]
    for name, command in commands.items():
        yield from (f"## nayer {name}", "", command.help, "")
        yield from (f"- `{line}`: {what}" for line, what in cli.COMMANDS[name].EXAMPLES)
        yield ""
        panels: dict[str, list[tuple[str, ...]]] = {}
        known = [_option_row(each) for each in commands[FIRST].params] if name != FIRST else []
        shared = []
        for parameter in (each for each in command.params if not getattr(each, "hidden", False)):
            row = _option_row(parameter)
            if row in known:
                shared.append(f"`{parameter.opts[0]}`")
            else:
                panels.setdefault(parameter.rich_help_panel or "Arguments and options", []).append(row)
        for panel, rows in panels.items():
            yield from _table((panel, "", "default", "variable"), rows)
        if shared:
            yield from _table((f"as in [nayer {FIRST}](#nayer-{FIRST})",), [(", ".join(shared),)])


def _option_row(parameter: Any) -> tuple[str, ...]:
    is_option = parameter.param_type_name == "option"
    flags = ", ".join(f"`{flag}`" for flag in parameter.opts) if is_option else ""
    value = f"`{parameter.metavar}`" if parameter.metavar else ""
    variable = "NAYER_SET" if parameter.name == "set" else parameter.envvar or ""
    default = parameter.show_default if isinstance(parameter.show_default, str) else ""
    return f"{flags} {value}".strip(), parameter.help, default, f"`{variable}`" if variable else ""


def _settings() -> Iterator[str]:
    first = dict(config.describe(cli.COMMANDS[FIRST].SCHEMA))
    for name, command in cli.COMMANDS.items():
        if (schema := getattr(command, "SCHEMA", None)) is None:
            continue
        yield from (f"## nayer {name}", "", (schema.__doc__ or "").strip(), "")
        settings = {key: about for key, about in config.describe(schema) if key != "method"}
        shared = [key for key, about in settings.items() if name != FIRST and first.get(key) == about]
        if shared:
            yield from _table((f"as in [nayer {FIRST}](#nayer-{FIRST})",), [(_listed(shared, first),)])
        rows = [_setting_row(*one) for one in settings.items() if one[0] not in shared]
        yield from _table(("setting", "meaning", "default", "values"), rows)
    for name in plugins.own("methods"):
        schema = plugin_settings.config_class("methods", name)
        yield from (f"## --method {name}", "", (schema.__doc__ or "").strip(), "")
        rows = [_setting_row(*one) for one in config.describe(schema, "method.")]
        yield from _table(("setting", "meaning", "default", "values"), rows)


def _listed(keys: Sequence[str], known: Iterable[str]) -> str:
    """List settings, and by its name alone a table of which all are meant."""
    tables = {key.partition(".")[0] for key in known if "." in key}
    whole = {table for table in tables if {key for key in known if key.startswith(f"{table}.")} <= set(keys)}
    names = dict.fromkeys(f"{table}.*" if (table := key.partition(".")[0]) in whole else key for key in keys)
    return ", ".join(f"`{name}`" for name in names)


def _setting_row(key: str, about: Any) -> tuple[str, ...]:
    default = about["default"]
    shown = "" if default in (None, "", ()) else f"`{str(default).lower() if default in (True, False) else default}`"
    return f"`{key}`", about["help"], shown, _values(about)


def _values(about: Any) -> str:
    """Describe what a setting admits: its choices, or its type and range."""
    if about["choices"]:
        return ", ".join(f"`{choice}`" for choice in about["choices"])
    low, high = about["low"], about["high"]
    bounds = f" {low} to {high}" if None not in (low, high) else f" ≥ {low}" if low is not None else ""
    bounds += f" > {about['above']}" if about["above"] is not None else ""
    kind = about["type"]
    name = kind.__name__ if isinstance(kind, type) else str(kind).removesuffix(" | None")
    return re.sub(r"tuple\[(.*), \.\.\.\]", r"list of \1", name) + bounds


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(headings)} |"
    yield "|---" * len(headings) + "|"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
    yield ""


def main() -> None:
    """Write the pages."""
    for path, text in (pages() | schemas()).items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
