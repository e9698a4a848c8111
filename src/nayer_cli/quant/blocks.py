"""A quantized network as blocks one after another, such as its residual units."""

from collections.abc import Iterator, Sequence

from torch import fx

from nayer_cli.quant.graph import QuantizedLayer
from nayer_cli.quant.quantizers import ActivationQuantizer
from nayer_cli.quant.trace import module_of

LAYERS = 3
"""Blocks of fewer quantized layers are joined with the next."""


def blocks(network: fx.GraphModule) -> Iterator[fx.GraphModule]:
    """Cut a network where a single tensor passes, into blocks that share its modules; residual units stay whole."""
    nodes = [node for node in network.graph.nodes if node.op not in ("placeholder", "output", "get_attr")]
    (entry,) = [node for node in network.graph.nodes if node.op == "placeholder" and node.users]
    (result,) = network.graph.find_nodes(op="output")
    start, pending = entry, []
    for position, node in enumerate(nodes):
        pending.append(node)
        later = set(nodes[position + 1 :]) | {result}
        passes = all(not later & set(other.users) for other in [start, *pending[:-1]])
        layers = sum(isinstance(module_of(one, network), QuantizedLayer) for one in pending)
        is_last = node is nodes[-1]
        if passes and (is_last or (isinstance(module_of(node, network), ActivationQuantizer) and layers >= LAYERS)):
            yield _block(network, start, pending)
            start, pending = node, []


def _block(network: fx.GraphModule, start: fx.Node, nodes: Sequence[fx.Node]) -> fx.GraphModule:
    graph, copies = fx.Graph(), {}
    copies[start] = graph.placeholder("x")

    def copied(node: fx.Node) -> fx.Node:
        if node not in copies:
            copies[node] = graph.node_copy(node, copied)  # constants
        return copies[node]

    for node in nodes:
        copies[node] = graph.node_copy(node, copied)
    graph.output(copies[nodes[-1]])
    return fx.GraphModule(network, graph)
