import subprocess
import sys
from copy import deepcopy
from importlib import import_module

import pytest
from timm.models import _registry as registry

from nayer_cli import generator, plugin_settings, plugins
from nayer_cli.classifiers import architecture, names
from nayer_cli.cli.checks import check
from nayer_cli.config import DistillConfig
from nayer_cli.errors import InputError
from nayer_cli.images import source
from nayer_cli.lte import encoder
from nayer_cli.runs import info
from nayer_cli.types import ImageShape

LAB = {
    "noise": "class Method: may_quantize = True\nclass Config: pass\n",
    "mlp": "class Generator:\n    def __init__(self, *args): self.args = args\n",
    "letters": "def open_encoder(argument, device): return argument\n",
    "nets": "import timm\n@timm.models.register_model\ndef labnet(pretrained=False, **kwargs): ...\n",
    "lake": "def recognizes(spec): return True\ndef open_source(spec, split): ...\n",
}
DECLARED = """[nayer.methods]
nayer = lab.noise
noise = lab.noise
broken = lab.broken
[nayer.generators]
mlp = lab.mlp
[nayer.encoders]
letters = lab.letters
[nayer.models]
labnet = lab.nets
resnet18 = lab.nets
absent = lab.nets
[nayer.sources]
lake = lab.lake
"""


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """An installed package that brings one plug-in of each kind, one that cannot be imported, and names of ours."""
    (tmp_path / "lab").mkdir()
    for name, text in {"__init__": "", "broken": "import no_such_module\n", **LAB}.items():
        (tmp_path / "lab" / f"{name}.py").write_text(text)
    (tmp_path / "lab-1.2.dist-info").mkdir()
    (tmp_path / "lab-1.2.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: lab\nVersion: 1.2\n")
    (tmp_path / "lab-1.2.dist-info" / "entry_points.txt").write_text(DECLARED)
    monkeypatch.syspath_prepend(tmp_path)
    import_module("nayer_cli.models")  # what it registers must outlive the copy
    for name in ("_model_entrypoints", "_model_to_module", "_module_to_models"):
        monkeypatch.setattr(registry, name, deepcopy(getattr(registry, name)))
    yield
    for module in [name for name in sys.modules if name.partition(".")[0] == "lab"]:
        del sys.modules[module]


@pytest.mark.usefixtures("lab")
def test_what_packages_declare_is_listed_without_importing_it():
    assert {"noise", "broken", "nayer"} <= set(plugins.names("methods"))
    assert info.describe_packages()["installed_plugins"]["generators"] == {"mlp": "lab 1.2"}
    assert info.describe_plugins("methods")["noise"] == "of lab 1.2"
    assert names.may_exist("labnet") and "labnet" in names.networks()
    encoder.check("letters")
    check(DistillConfig, {"method.name": "noise"})
    assert not [name for name in sys.modules if name.startswith("lab.")]


@pytest.mark.usefixtures("lab")
def test_what_packages_declare_is_used_by_its_name():
    assert plugins.part("methods", "noise", "Method").may_quantize
    assert generator.new_generator("mlp", 4, ImageShape(1, 8, 8), 8).args[0] == 4
    assert encoder.find("letters:7") == "7"
    assert architecture.find("labnet").key == "labnet"
    assert source.recognized("lake://7").__name__ == "lab.lake"


@pytest.mark.usefixtures("lab")
def test_names_of_ours_stay_ours_and_it_is_said():
    assert plugins.load("methods", "nayer").__name__ == "nayer_cli.methods.nayer"
    assert source.recognized("digits").__name__ == "nayer_cli.images.sources.builtin"
    problems = info.describe_machine()["problems"]
    assert any("lab 1.2 brings 'nayer' for methods" in problem["what"] for problem in problems)


@pytest.mark.usefixtures("lab")
def test_a_package_that_is_broken_is_named_only_when_it_is_used():
    with pytest.raises(InputError, match=r"cannot import lab.broken: ModuleNotFoundError") as fault:
        plugins.load("methods", "broken")
    assert "lab 1.2" in fault.value.hint
    with pytest.raises(InputError, match=r"lab.nets is declared to provide the network 'absent', but does not"):
        architecture.find("absent")


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


def test_what_a_method_uses_of_names_is_known_without_importing_it():
    for name in plugins.own("methods"):
        used = plugin_settings.uses_names(name, plugin_settings.config_class("methods", name)())
        method = plugins.part("methods", name, "Method")
        assert used == getattr(plugins.part("methods", name, "Config")(), "uses_names", method.uses_names), name
