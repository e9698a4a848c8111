"""VGG with BatchNorm and a single linear layer, for small images (Simonyan & Zisserman, ICLR 2015)."""

from torch import Tensor, nn

from nayer_cli.classifiers.models._network import Network, register

WIDTHS = (64, 128, 256, 512, 512)
EXTRA_POOLING_FROM = 64
"""Image side in pixels from which on the fourth block, too, is followed by max-pooling."""


class Vgg(Network):
    """Five blocks of conv-BN-ReLU; max-pooling after the first three, and after the fourth for larger images.

    Args:
        depths: number of convolutions of each of the five blocks.
        num_classes: K.
        in_chans: image channels.
        img_size: image side, or height and width, in pixels; it decides the pooling, others work, too.

    """

    def __init__(
        self,
        depths: tuple[int, ...],
        num_classes: int = 10,
        in_chans: int = 3,
        img_size: int | tuple[int, int] = 32,
    ) -> None:
        super().__init__()
        side = img_size if isinstance(img_size, int) else min(img_size)
        pooled_blocks = 4 if side >= EXTRA_POOLING_FROM else 3
        layers: list[nn.Module] = []
        in_width = in_chans
        for block, (depth, width) in enumerate(zip(depths, WIDTHS, strict=True)):
            for _ in range(depth):
                layers += [
                    nn.Conv2d(in_width, width, 3, padding=1),
                    nn.BatchNorm2d(width),
                    nn.ReLU(inplace=True),
                ]
                in_width = width
            if block < pooled_blocks:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.attach_head(in_width, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map normalized images `[B, C, H, W]` to `[B, 512, H/8, W/8]`, or a sixteenth for larger images."""
        features: Tensor = self.features(x)
        return features


for _name, _depths in (("vgg11_cifar", (1, 1, 2, 2, 2)), ("vgg19_cifar", (2, 2, 4, 4, 4))):
    register(_name, Vgg, first_conv="features.0", fixed_input_size=True, depths=_depths)
