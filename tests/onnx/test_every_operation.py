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
WITHOUT_RULE = {nn.Conv3d: "it takes no images"}
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
CASES += [
    nn.LogSigmoid(),
    nn.Hardshrink(1),
    nn.Softshrink(1),
    nn.Tanhshrink(),
    nn.Threshold(1, 2),
    nn.RReLU(),
    nn.ELU(2),
]
CASES += [nn.Softsign(), nn.Hardtanh(-1, 2), Function(F.threshold, 0.5, -1.0)]
CASES += [
    Function(lambda x: torch.addcmul(x, x, x, value=0.5)),
    Function(lambda x: torch.baddbmm(x[:, 0], x[:, 1], x[:, 2])),
]
CASES += [Function(F.interpolate, None, 1.6, mode) for mode in ("nearest", "bilinear", "bicubic")]
CASES += [Function(F.interpolate, (4, 9), None, "area"), Function(F.interpolate, (9, 5), None, "bicubic", True)]
CASES += [nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, 2), nn.Hardswish(), nn.Hardsigmoid()]
CASES += [nn.Unfold(3, padding=1), Function(lambda x: x.unfold(2, 3, 2)), Function(torch.roll, (1, -2), (2, 3))]
CASES += [nn.Sequential(nn.Unfold(2, stride=2), nn.Fold(6, 2, stride=2))]
CASES += [Function(lambda x: torch.stack([x, 2 * x], -1)), Function(lambda x: x.repeat(1, 2, 1, 1))]
CASES += [Function(lambda x: x.repeat_interleave(3, dim=0).flatten(1).unflatten(0, (-1, 3)))]
CASES += [Function(lambda x: x.flip(2, 3)), Function(lambda x: x[:, [3, 0]]), Function(torch.amax, (2, 3))]
CASES += [Function(lambda x: x.max(1).values), Function(F.normalize), Function(lambda x: x.norm(dim=1))]
CASES += [Function(lambda x: x.var((2, 3))), Function(lambda x: x.std(1)), nn.RMSNorm(6), Function(F.glu, 1)]
CASES += [Function(lambda x: torch.einsum("bchw,bdhw->bcd", x, x)), Function(lambda x: (x.abs() + 1).rsqrt())]
CASES += [
    Function(lambda x: torch.where(x > 0, x, x.square())),
    nn.Sequential(nn.Flatten(2), nn.Conv1d(4, 2, 3, padding=1)),
]
CASES += [Function(lambda x: x.movedim(1, -1)), Function(lambda x: x.flatten(2).mT), Function(lambda x: 1 - x**2 / 3)]
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
