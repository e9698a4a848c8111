"""MobileNetV2 with fewer strides, for 32-pixel images (Sandler et al., CVPR 2018)."""

from torch import Tensor, nn

from nayer_cli.classifiers.models._network import Network, conv3x3, register

STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, width, number of blocks, and stride of the first of them."""
LAST_WIDTH = 1280


class Block(nn.Module):
    """Expand, filter each channel, project. Activations are ReLU, not ReLU6.

    The shortcut is a 1x1 convolution with BatchNorm where the width changes; with a stride there is none.
    """

    def __init__(self, in_width: int, width: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = in_width * expansion
        self.conv1 = nn.Conv2d(in_width, hidden, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, stride, padding=1, groups=hidden, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(hidden, width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(in_width, width) if stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, in_width, H, W]` to `[B, width, H/stride, W/stride]`."""
        hidden = self.relu2(self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x))))))
        out: Tensor = self.bn3(self.conv3(hidden))
        return out if self.shortcut is None else out + self.shortcut(x)


class MobileNetV2(Network):
    """A convolution of width 32, `STAGES`, and a 1x1 convolution of width 1280.

    Args:
        num_classes: K.
        in_chans: image channels.

    """

    def __init__(self, num_classes: int = 10, in_chans: int = 3) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_chans, 32)
        self.bn1 = nn.BatchNorm2d(32)
        self.relu1 = nn.ReLU(inplace=True)
        self.blocks = _blocks(32)
        self.conv2 = nn.Conv2d(STAGES[-1][1], LAST_WIDTH, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(LAST_WIDTH)
        self.relu2 = nn.ReLU(inplace=True)
        self.attach_head(LAST_WIDTH, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map normalized images `[B, C, H, W]` to `[B, 1280, H/8, W/8]`."""
        x = self.blocks(self.relu1(self.bn1(self.conv1(x))))
        features: Tensor = self.relu2(self.bn2(self.conv2(x)))
        return features


def _blocks(in_width: int) -> nn.Sequential:
    blocks: list[nn.Module] = []
    for expansion, width, count, stride in STAGES:
        for index in range(count):
            blocks.append(Block(in_width, width, expansion, stride if index == 0 else 1))
            in_width = width
    return nn.Sequential(*blocks)


def _shortcut(in_width: int, width: int) -> nn.Module:
    if in_width == width:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(in_width, width, 1, bias=False), nn.BatchNorm2d(width))


register("mobilenetv2_cifar", MobileNetV2)
