"""Tensors on their way from the host to a device."""

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Return `tensor` on `device`; the host does not wait for the device.

    Copies from ordinary memory would have to pass through a buffer of the driver, and wait for it.
    """
    target = torch.device(device)
    if target.type == "cuda" and not tensor.is_cuda and not tensor.is_pinned():
        tensor = tensor.pin_memory()
    return tensor.to(target, non_blocking=True)


def gather(rows: Tensor, places: Tensor, device: torch.device | str) -> Tensor:
    """Return `rows[places]` on `device`, of rows that are there or on the host, as `places` are."""
    target = torch.device(device)
    if target.type != "cuda" or rows.is_cuda:
        return rows.index_select(0, places).to(target, non_blocking=True)
    staged = torch.empty((len(places), *rows.shape[1:]), dtype=rows.dtype, pin_memory=True)
    return torch.index_select(rows, 0, places, out=staged).to(target, non_blocking=True)
