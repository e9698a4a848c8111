"""Unusual classifiers of 3×16×16 images with ten classes: `py:odd_networks:NAME` makes `NETWORKS[NAME]`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from timm.layers import BatchNormAct2d, FrozenBatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.ops import FrozenBatchNorm2d
from transformers.modeling_outputs import ImageClassifierOutput

CLASSES = 10


class Network(nn.Sequential):
    """Two convolutions with a normalization each; `head` makes of the logits what the network returns."""

    def __init__(
        self,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        head: Callable[[Tensor], Any] = lambda logits: logits,
        channels: int = 3,
    ) -> None:
        torch.manual_seed(0)
        super().__init__(
            nn.Conv2d(channels, 8, 3, padding=1),
            norm(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1),
            norm(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, CLASSES),
        )
        self.head = head
        for buffer in (buffer for name, buffer in self.named_buffers() if name.endswith("running_var")):
            buffer.uniform_(0.5, 2)

    def forward(self, images: Tensor) -> Any:
        return self.head(super().forward(images))


def folded() -> nn.Module:
    """BatchNorm in the convolutions, as tools for inference leave it."""
    network = Network().eval()
    for conv, norm in ((0, 1), (3, 4)):
        network[conv] = fuse_conv_bn_eval(network[conv], network[norm])  # type: ignore[type-var]
        network[norm] = nn.Identity()
    return network


class Auxiliary(Network):
    """A second head that only training uses, as Inception has."""

    def __init__(self) -> None:
        super().__init__()
        self.auxiliary = nn.Sequential(nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5))

    def forward(self, images: Tensor) -> Any:
        for layer in list(self)[:9]:
            images = layer(images)
        return images


class Reordered(nn.Module):
    """Layers that run in another order than they were made in, one of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.late, self.early = nn.Linear(8, CLASSES), nn.BatchNorm2d(8), nn.BatchNorm2d(3)
        self.wide, self.same = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 3, 3)

    def forward(self, images: Tensor) -> Tensor:
        early = self.early(self.same(self.early(images)))
        logits: Tensor = self.linear(self.late(self.wide(early)).mean((2, 3)))
        return logits


class HalfInside(nn.Module):
    """Casts its images to the type that its weights had when it was written."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Network().half()

    def forward(self, images: Tensor) -> Any:
        return self.network(images.half())


class Fixed(nn.Sequential):
    """Takes images of one size alone."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(3 * 16 * 16, CLASSES))


class Blind(nn.Module):
    """Passes no gradient on to its images."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Network()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Any:
        return self.network(images)


class Brightness(nn.Module):
    """Tells dark images from light ones, without fail."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(10.0))

    def forward(self, images: Tensor) -> Tensor:
        level = self.slope * images.mean((1, 2, 3))
        return torch.stack([-level, level], 1)


@dataclass
class Output:
    """What a library may return."""

    loss: Tensor | None
    logits: Tensor


class Named(NamedTuple):
    """Logits that are not the first."""

    auxiliary: Tensor
    logits: Tensor


def spoiled(tensor: str, value: float) -> nn.Module:
    """A network with one number changed."""
    network = Network()
    network.state_dict()[tensor].view(-1)[1] = value
    return network


def _feature_maps(logits: Tensor) -> Tensor:
    return logits.new_zeros(len(logits), 5, 4, 4)


HEADS: dict[str, Callable[[Tensor], Any]] = {
    "first_of_tuple": lambda z: (z, 2 * z),
    "list_of_one": lambda z: [z],
    "dictionary": lambda z: {"features": 2 * z, "logits": z},
    "model_output": lambda z: ImageClassifierOutput(logits=z),
    "data_class": lambda z: Output(None, z),
    "named_tuple": lambda z: Named(3 * z, z),
    "fully_convolutional": lambda z: z[:, :, None, None],
    "log_softmax": lambda z: z.log_softmax(1),
}
"""All of them mean the logits z."""
WRONG_HEADS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "softmax": (lambda z: z.softmax(1), "returns probabilities"),
    "decision": (lambda z: nn.functional.one_hot(z.argmax(1), CLASSES).float(), "returns probabilities"),
    "class_index": (lambda z: z.argmax(1, keepdim=True), "returns int64"),
    "features_first": (lambda z: (_feature_maps(z), z), "a tensor of shape [1, 5, 4, 4], not logits [B, K]"),
    "segmentation": (lambda z: {"out": _feature_maps(z), "aux": z}, "a dict of out, aux, without 'logits'"),
    "squeezed": (lambda z: z.squeeze(), "a tensor of shape [10], not logits [B, K]"),
    "pooled": (lambda z: z.mean(0, keepdim=True), "returns 1 rows of logits for 2 images"),
    "nothing": (lambda z: None, "returns a NoneType"),
    "not_a_number": (lambda z: z.log(), "answers noise with NaN or infinity"),
}
"""Heads that are refused, with the words that say why."""
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch_norm": nn.BatchNorm2d,
    "batch_norm_act": BatchNormAct2d,
    "batch_norm_without_affine": partial(nn.BatchNorm2d, affine=False),
    "sync_batch_norm": nn.SyncBatchNorm,
    "frozen": FrozenBatchNorm2d,
    "frozen_act": FrozenBatchNormAct2d,
}
"""Layers with the running statistics of their input."""
OTHER_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "without_norm": lambda channels: nn.Identity(),
    "group_norm": partial(nn.GroupNorm, 2),
    "instance_norm": partial(nn.InstanceNorm2d, track_running_stats=True),
    "batch_norm_of_the_batch": partial(nn.BatchNorm2d, track_running_stats=False),
}
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    **{name: partial(Network, head=head) for name, head in HEADS.items()},
    **{name: partial(Network, head=head) for name, (head, _) in WRONG_HEADS.items()},
    **{name: partial(Network, norm=norm) for name, norm in (NORMS | OTHER_NORMS).items()},
    "plain": Network,
    "folded": folded,
    "auxiliary": Auxiliary,
    "reordered": Reordered,
    "half_inside": HalfInside,
    "fixed": Fixed,
    "blind": Blind,
    "brightness": Brightness,
    "grey": partial(Network, channels=1),
    "half": lambda: Network().half(),
    "bfloat": lambda: Network().bfloat16(),
    "double": lambda: Network().double(),
    "nan_weight": partial(spoiled, "3.weight", float("nan")),
    "infinite_variance": partial(spoiled, "4.running_var", float("inf")),
    "negative_variance": partial(spoiled, "1.running_var", -1.0),
    "beyond_float32": lambda: Network().double().requires_grad_(False).apply(_enlarge),
}


def _enlarge(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        module.weight[0, 0] = 1e300


def __getattr__(name: str) -> Callable[[], nn.Module]:
    if name not in NETWORKS:
        raise AttributeError(name)
    return NETWORKS[name]
