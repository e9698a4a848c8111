import pytest
import torch
from torch import nn

from nayer_cli.classifiers.model import Classifier, Normalized
from nayer_cli.classifiers.onnx_file import load_onnx, write_classifier
from nayer_cli.errors import ConfigError, InputError, RunFailed
from nayer_cli.onnx import by_torch
from nayer_cli.quant.scheme import Scheme
from nayer_cli.runs import onnx_file
from nayer_cli.runs.onnx_file import compare, export_onnx
from nayer_cli.types import Normalization
from onnx_files import SHAPE, deployed
from tiny import network

NORMALIZATION = Normalization((0.5, 0.4, 0.3), (0.25, 0.2, 0.1))
NAMES = ("ape", "bee", "cow", "dog")


def classifier(module: nn.Module, scheme: Scheme | None = None) -> Classifier:
    return Classifier(module.eval(), "tiny", SHAPE, NORMALIZATION, 4, NAMES, scheme=scheme)


class Gated(nn.Module):
    """Has an operation that no rule knows: the writer must leave it to PyTorch's exporter."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.asinh(self.network(images))


@pytest.mark.parametrize("place", ["outside", "inside"])
def test_a_file_tells_what_it_takes_and_is_measured_alike(tmp_path, place):
    result = export_onnx({"model": "builtin:digits", "out": str(tmp_path / "d.onnx"), "normalization": place})
    loaded, images = load_onnx(tmp_path / "d.onnx"), torch.rand(4, 1, 16, 16)
    original = onnx_file.models.load(onnx_file.ModelConfig("builtin:digits"), onnx_file.models.EXPORTED)
    wanted = Normalized(original.network, original.normalization)(images)
    torch.testing.assert_close(Normalized(loaded.network, loaded.normalization)(images), wanted, atol=1e-3, rtol=0)
    assert (loaded.labels, loaded.normalization.std[0] == 1) == (original.labels, place == "inside")
    assert (result["agreement"], result["writer"], result["bytes"]) == (
        1,
        "nayer",
        (tmp_path / "d.onnx").stat().st_size,
    )


@pytest.mark.skipif(not by_torch.is_there(), reason="needs onnxscript")
@pytest.mark.parametrize("inside", [False, True])
def test_what_we_have_no_rules_for_is_written_by_torch(tmp_path, inside):
    gated = classifier(Gated())
    assert write_classifier(tmp_path / "m.onnx", gated, inside=inside) == "torch.onnx"
    assert load_onnx(tmp_path / "m.onnx").labels == NAMES
    assert compare(tmp_path / "m.onnx", gated, inside=inside).largest < 1e-4


def test_without_the_exporter_its_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(by_torch, "PACKAGE", "no_such_package")
    with pytest.raises(InputError, match=r"asinh.*no rule") as fault:
        write_classifier(tmp_path / "m.onnx", classifier(Gated()))
    assert fault.value.hint == "pip install no_such_package"


@pytest.mark.parametrize("target", ["onnxruntime", "openvino", "tensorrt"])
def test_integers_are_written_for_each_runtime(tmp_path, target):
    integers = classifier(deployed(network(), activations=7, edges=7), Scheme(8, 7, edges=7))
    write_classifier(tmp_path / "m.onnx", integers, target=target)
    found = compare(tmp_path / "m.onnx", integers)
    assert onnx_file._judge(found, integers, target, tmp_path / "m.onnx") == ""


def test_a_file_that_does_something_else_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "compare", lambda *_, **__: onnx_file.Comparison(32, 31, 2.0, 3.0))
    (tmp_path / "d.onnx").write_text("old")
    with pytest.raises(RunFailed, match="31 have the same class"):
        export_onnx({"model": "builtin:digits", "out": str(tmp_path / "d.onnx")})
    assert (tmp_path / "d.onnx").read_text() == "old"


@pytest.mark.parametrize(
    ("settings", "fault", "error"),
    [
        ({}, "no model is given", InputError),
        ({"model": "builtin:digits"}, "must name a file that ends in .onnx", InputError),
        ({"model": "builtin:digits", "out": "x.pt"}, "not x.pt", InputError),
        ({"model": "builtin:digits", "out": "x.onnx", "target": "tensorrt"}, "is not one", ConfigError),
        ({"model": "m", "out": "x.onnx", "target": "tensorrt", "storage": "int4"}, "store int8", ConfigError),
        ({"model": "other.onnx", "out": "x.onnx"}, "is an ONNX file", InputError),
    ],
)
def test_what_cannot_be_exported_is_told(settings, fault, error):
    with pytest.raises(error, match=fault):
        export_onnx(settings)
