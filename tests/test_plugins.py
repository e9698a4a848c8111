import subprocess
import sys

import pytest

from nayer_cli import plugins
from nayer_cli.errors import InputError


def test_names_are_listed_without_importing_torch():
    code = "from nayer_cli import plugins; import sys; print(plugins.names('methods'), 'torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'nayer'" in out and "False" in out


def test_a_wrong_name_is_corrected():
    with pytest.raises(InputError, match="did you mean 'nayer'"):
        plugins.load("methods", "nayr")


def test_a_dotted_path_loads_code_from_outside(tmp_path, monkeypatch):
    (tmp_path / "mylab.py").write_text("value = 7\n")
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "best.py").write_text("value = 8\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert plugins.load("methods", "pkg.best").value == 8


def test_settings_of_methods_stand_by_themselves():
    code = """
import sys
from nayer_cli import plugin_settings, plugins
for name in plugins.names("methods"):
    plugin_settings.config_class("methods", name)
    assert "torch" not in sys.modules, name
"""
    subprocess.run([sys.executable, "-c", code], check=True)
