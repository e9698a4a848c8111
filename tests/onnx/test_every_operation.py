"""What `quant.ops` knows, ONNX knows too: by name, and by value where the rule is more than a name."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nayer_cli.onnx.ops import RULES
from nayer_cli.onnx.writer import write_onnx
from nayer_cli.quant import ops
from nayer_cli.quant.trace import trace
from nayer_cli.types import ImageShape

KINDS = {
    name: kinds
    for name, kinds in vars(ops).items()
    if name.isupper() and isinstance(kinds, tuple) and name != "REASONS"
}
WITHOUT_RULE = {nn.Conv1d: "it takes no images", nn.Conv3d: "it takes no images"}
SPELLINGS = {spelling for kinds in ops.TABLE.values() for spellings in kinds for spelling in spellings}


@pytest.mark.parametrize("spelling", sorted(SPELLINGS, key=str))
def test_every_spelling_has_an_onnx_rule_or_a_reason(spelling):
    name = spelling.rstrip("_") if isinstance(spelling, str) else spelling
    assert (name in RULES) != (name in WITHOUT_RULE)


class Function(nn.Module):
    def __init__(self, function, *args):
        super().__init__()
        self.function, self.args = function, args

    def forward(self, x):
        return self.function(x, *self.args)


CASES = [nn.PReLU(), nn.PReLU(4, 0.1), nn.SELU(), nn.CELU(0.5), nn.Softplus(), nn.Softplus(2.0), nn.PixelShuffle(2)]
CASES += [nn.PixelUnshuffle(2), Function(F.celu, 2.0), Function(F.softplus, 0.5), Function(F.pixel_unshuffle, 3)]


@pytest.mark.parametrize("layer", CASES, ids=repr)
@torch.no_grad()
def test_the_file_computes_what_the_operation_does(layer, tmp_path: Path):
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), layer, nn.Flatten(), nn.LazyLinear(5)).eval()
    x = 3 * torch.randn(2, 3, 6, 6)
    wanted = network(x)
    write_onnx(trace(network, ImageShape(3, 6, 6)), ImageShape(3, 6, 6), tmp_path / "m.onnx", facts={})
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=1e-4, atol=1e-5)
