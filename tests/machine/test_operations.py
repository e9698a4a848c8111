import torch
from torch import nn

from nayer_cli.machine.operations import OperationCounter


def test_convolutions_and_products_are_counted_forward_and_backward():
    counter, network = OperationCounter(), nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten(), nn.Linear(5 * 4, 7))
    forward = 2 * 5 * 3 * 9 * 4 + 2 * 20 * 7
    with counter:
        logits = network(torch.zeros(1, 3, 4, 4))
    assert (counter.take(), counter.take()) == (forward, 0)
    with counter:
        logits.sum().backward()
    assert counter.take() == 2 * forward - 2 * 5 * 3 * 9 * 4  # the image needs no gradient
    network(torch.zeros(1, 3, 4, 4))
    assert counter.take() == 0
