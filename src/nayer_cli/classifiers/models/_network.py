"""The common base of families: timm's classifier surface, initialization, and registration."""

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2023, 0.1994, 0.2010)

default_cfgs: dict[str, Any] = {}
"""timm's facts about each network; `register_model` looks for them under this name."""


class Network(nn.Module):
    """Features `[B, F, H', W']`, averaged over space, and a linear classifier, as timm expects them.

    A subclass calls `attach_head` at the end of its constructor and defines `forward_features`.
    """

    num_features: int
    num_classes: int

    def attach_head(self, num_features: int, num_classes: int) -> None:
        """Add pooling and classifier (0 classes: none), and initialize everything."""
        self.num_features = num_features
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reset_classifier(num_classes)
        initialize(self)

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.linear

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last layer by a fresh one for `num_classes`; 0 leaves the features."""
        self.num_classes = num_classes
        self.linear = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        initialize(self.linear)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map normalized images `[B, C, H, W]` to features `[B, F, H', W']`."""
        raise TypeError(f"{type(self).__name__} must define forward_features")

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map features to logits `[B, K]`, or to pooled features `[B, F]`."""
        pooled: Tensor = self.pool(x).flatten(1)
        logits: Tensor = pooled if pre_logits else self.linear(pooled)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Map normalized images `[B, C, H, W]` to logits `[B, K]`."""
        return self.forward_head(self.forward_features(x))


def initialize(network: nn.Module) -> None:
    """Draw convolutions from N(0, √(2 / fan-out)) (He et al. 2015, eq. 14); set biases to 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            nn.init.zeros_(module.bias)


def conv3x3(in_width: int, width: int, stride: int = 1) -> nn.Conv2d:
    """Return a convolution that divides the size by `stride`; BatchNorm follows, so it needs no bias."""
    return nn.Conv2d(in_width, width, 3, stride, padding=1, bias=False)


def register(
    name: str,
    network: type[Network],
    *,
    input_size: tuple[int, int, int] = (3, 32, 32),
    mean: tuple[float, ...] = CIFAR_MEAN,
    std: tuple[float, ...] = CIFAR_STD,
    first_conv: str = "conv1",
    fixed_input_size: bool = False,
    **arguments: Any,
) -> None:
    """Let `timm.create_model(name)` build `network(**arguments)`; arguments of that call go before these.

    Args:
        name: as timm lists it.
        network: the class; it takes `num_classes` and `in_chans`, too.
        input_size: (C, H, W) that the network is meant for.
        mean: normalization, for images in [0, 1].
        std: normalization, for images in [0, 1].
        first_conv: name of the layer that takes the image.
        fixed_input_size: timm then tells the constructor the image size, as `img_size`.
        arguments: what makes this variant of the class.

    """

    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        built: nn.Module = build_model_with_cfg(network, name, pretrained, **{**arguments, **kwargs})
        return built

    create.__name__ = name
    facts = {
        "input_size": input_size,
        "fixed_input_size": fixed_input_size,
        "num_classes": 10,
        "mean": mean,
        "std": std,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "first_conv": first_conv,
        "classifier": "linear",
    }
    default_cfgs.update(generate_default_cfgs({name: facts}))
    register_model(create)
