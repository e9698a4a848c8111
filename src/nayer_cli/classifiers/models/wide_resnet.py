"""Wide residual networks with pre-activation for 32-pixel images (Zagoruyko & Komodakis, BMVC 2016)."""

from torch import Tensor, nn

from nayer_cli.classifiers.models._network import Network, conv3x3, register


class Block(nn.Module):
    """BN-ReLU-conv, twice. A shortcut that changes the width is a 1x1 convolution of the activated input."""

    def __init__(self, in_width: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_width)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = conv3x3(in_width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(width, width)
        self.shortcut = nn.Conv2d(in_width, width, 1, stride, bias=False) if in_width != width else None

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, in_width, H, W]` to `[B, width, H/stride, W/stride]`."""
        activated = self.relu1(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(activated)
        out: Tensor = self.conv2(self.relu2(self.bn2(self.conv1(activated))))
        return out + shortcut


class WideResNet(Network):
    """WRN-d-k: three groups of (d − 4) / 6 blocks, of widths 16k, 32k and 64k.

    Args:
        depth: d, the number of convolutions in the longest path, 6n + 4.
        widen_factor: k.
        num_classes: K.
        in_chans: image channels.

    """

    def __init__(self, depth: int, widen_factor: int, num_classes: int = 10, in_chans: int = 3) -> None:
        super().__init__()
        blocks, width = (depth - 4) // 6, 16 * widen_factor
        self.conv1 = conv3x3(in_chans, 16)
        self.layer1 = _group(blocks, 16, width, stride=1)
        self.layer2 = _group(blocks, width, 2 * width, stride=2)
        self.layer3 = _group(blocks, 2 * width, 4 * width, stride=2)
        self.bn1 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.attach_head(4 * width, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map normalized images `[B, C, H, W]` to `[B, 64k, H/4, W/4]`."""
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        features: Tensor = self.relu(self.bn1(x))
        return features


def _group(blocks: int, in_width: int, width: int, stride: int) -> nn.Sequential:
    first = Block(in_width, width, stride)
    return nn.Sequential(first, *(Block(width, width, stride=1) for _ in range(blocks - 1)))


for _depth, _factor in ((16, 1), (16, 2), (40, 1), (40, 2)):
    register(f"wrn_{_depth}_{_factor}", WideResNet, depth=_depth, widen_factor=_factor)
