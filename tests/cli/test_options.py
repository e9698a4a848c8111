import pytest
from typer.main import get_command

from nayer_cli import cli, config
from nayer_cli.cli import options

STEERING = {"config", "set", "debug", "trust_code", "resume", "dry_run", "json", "quiet", "methods", "models"}


@pytest.mark.parametrize("name", sorted(name for name in cli.COMMANDS if hasattr(cli.COMMANDS[name], "SCHEMA")))
def test_every_option_stands_for_a_setting_of_its_command(name):
    schema = cli.COMMANDS[name].SCHEMA
    setting_of = options.SETTING_OF | getattr(cli.COMMANDS[name], "OF_THE_MODEL", {})
    keys = {*config.keys(schema), "method.name"}
    for parameter in get_command(cli.app).commands[name].params:
        if parameter.name not in STEERING:
            assert options.setting_in(schema, setting_of[parameter.name]) in keys


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_option_has_a_panel_a_sentence_and_a_variable(name):
    for parameter in get_command(cli.app).commands[name].params:
        assert parameter.help
        if name not in ("info", "compare") and parameter.param_type_name == "option":
            assert parameter.rich_help_panel
            assert parameter.name == "set" or parameter.envvar == f"NAYER_{parameter.name.upper()}"


def test_names_of_plugins_and_presets_complete():
    of = {parameter.name: parameter for parameter in get_command(cli.app).commands["distill"].params}
    context = get_command(cli.app).commands["distill"].make_context("distill", [])
    complete = {name: [item.value for item in of[name].shell_complete(context, "")] for name in ("method", "preset")}
    assert {"nayer", "zskt"} <= set(complete["method"])
    assert {"auto", "digits"} <= set(complete["preset"])
