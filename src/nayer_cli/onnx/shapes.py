"""The values of a graph's nodes as a writer needs them: sizes that depend on the batch, and constants."""

from typing import Any

import torch
from torch import Tensor, fx

from nayer_cli.onnx.graph import BATCH
from nayer_cli.types import ImageShape


class Shape(tuple[int, ...]):
    """The shape of a tensor that depends on the images; the size of the batch is `BATCH`."""


@torch.no_grad()
def results(network: fx.GraphModule, shape: ImageShape) -> dict[fx.Node, Any]:
    """Return for each node a `Shape`, several of them, or a constant: a tensor or anything else.

    The network runs twice, with two images and with three: what then differs is the size of the batch.

    Args:
        network: in evaluation mode.
        shape: of one image.

    """
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    two, three = _Recorder(network), _Recorder(network)
    two.run(torch.zeros(2, *shape, device=device))
    three.run(torch.zeros(3, *shape, device=device))
    return {node: _merge(found, three.found[node]) for node, found in two.found.items()}


def holds_shapes(result: object) -> bool:
    """Say whether a result is, or contains, a tensor that depends on the images."""
    if isinstance(result, Shape):
        return True
    return isinstance(result, (tuple, list)) and any(map(holds_shapes, result))


class _Recorder(fx.Interpreter):
    """Runs a network, and keeps what each node returns: constants as they are, and the shapes of everything else."""

    def __init__(self, network: fx.GraphModule) -> None:
        super().__init__(network)
        self.found: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        depends = n.op == "placeholder" or any(holds_shapes(self.found[source]) for source in n.all_input_nodes)
        self.found[n] = _shapes(result) if depends else result
        return result


def _shapes(result: object) -> Any:
    if isinstance(result, Tensor):
        return Shape(result.shape)
    return tuple(map(_shapes, result)) if isinstance(result, (tuple, list)) else result


def _merge(two: Any, three: Any) -> Any:
    if isinstance(two, Tensor):  # a constant, unless it is repeated for each image
        return two if two.shape == three.shape else _merge(Shape(two.shape), Shape(three.shape))
    if isinstance(two, (tuple, list)):
        kind = Shape if isinstance(two, Shape) else tuple
        return kind(_merge(*pair) for pair in zip(two, three, strict=True))
    return BATCH if two != three else two
