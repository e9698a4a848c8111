"""Residual networks for small images (He et al., CVPR 2016), without the max-pooling at the start.

`resnet{20..110}_cifar_a` have the paper's parameter-free shortcuts (option A) and the parameter names of the
widely used CIFAR-10 checkpoints; `…_cifar_b` and the 18- and 34-layer networks have projections (option B).
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from nayer_cli.classifiers.models._network import Network, conv3x3, register


class PaddedShortcut(nn.Module):
    """Option A: every `stride`-th pixel, and zeros for the channels that the input lacks, half on each end."""

    def __init__(self, in_width: int, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (width - in_width) // 2
        self.after = width - in_width - self.before

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, in_width, H, W]` to `[B, width, H/stride, W/stride]`."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class Block(nn.Module):
    """The basic block: conv-BN-ReLU-conv-BN, plus the shortcut, then ReLU."""

    def __init__(self, in_width: int, width: int, stride: int, projection: bool) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_width, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(in_width, width, stride, projection)
        self.relu2 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, in_width, H, W]` to `[B, width, H/stride, W/stride]`."""
        out = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        activated: Tensor = self.relu2(out + self.shortcut(x))
        return activated


class ResNet(Network):
    """Stages of basic blocks; each stage doubles the width and, but for the first, halves the size.

    Args:
        blocks: number of blocks of each stage.
        width: channels of the first stage.
        projection: whether shortcuts that change the shape are a 1x1 convolution with BatchNorm.
        num_classes: K.
        in_chans: image channels.

    """

    def __init__(
        self, blocks: Sequence[int], width: int, projection: bool, num_classes: int = 10, in_chans: int = 3
    ) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_chans, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.stages = [f"layer{number}" for number in range(1, len(blocks) + 1)]
        in_width = width
        for index, (name, count) in enumerate(zip(self.stages, blocks, strict=True)):
            out_width, stride = width * 2**index, 2 if index else 1
            first = Block(in_width, out_width, stride, projection)
            rest = (Block(out_width, out_width, 1, projection) for _ in range(count - 1))
            self.add_module(name, nn.Sequential(first, *rest))
            in_width = out_width
        self.attach_head(in_width, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map normalized images `[B, C, H, W]` to features, half as large from stage to stage."""
        x = self.relu(self.bn1(self.conv1(x)))
        for name in self.stages:
            x = self.get_submodule(name)(x)
        return x


def _shortcut(in_width: int, width: int, stride: int, projection: bool) -> nn.Module:
    if in_width == width and stride == 1:
        return nn.Identity()
    if not projection:
        return PaddedShortcut(in_width, width, stride)
    return nn.Sequential(nn.Conv2d(in_width, width, 1, stride, bias=False), nn.BatchNorm2d(width))


register("resnet18_cifar", ResNet, blocks=(2, 2, 2, 2), width=64, projection=True)
register("resnet34_cifar", ResNet, blocks=(3, 4, 6, 3), width=64, projection=True)
for _depth in (20, 32, 44, 56, 110):
    _blocks = (_depth - 2) // 6
    register(f"resnet{_depth}_cifar_a", ResNet, blocks=(_blocks,) * 3, width=16, projection=False)
    register(f"resnet{_depth}_cifar_b", ResNet, blocks=(_blocks,) * 3, width=16, projection=True)
for _depth, _width in ((8, 12), (14, 16)):
    register(
        f"resnet{_depth}_digits",
        ResNet,
        input_size=(1, 16, 16),
        mean=(0.31,),
        std=(0.32,),
        blocks=((_depth - 2) // 6,) * 3,
        width=_width,
        projection=False,
    )
