"""Commands of nayer on a virtual device, and faults that are planted to see whether it finds them."""

import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from time import process_time
from typing import Any

import torch
from torch import nn

import nayer_cli
from nayer_cli.__main__ import main
from virtual_device import CUDA, Ledger, virtual_device

PACKAGE = Path(nayer_cli.__file__).parent


def _mixed_devices() -> None:
    torch.rand(3, device=CUDA) + torch.rand(3)


def _network_on_the_host() -> None:
    nn.Linear(3, 2)(torch.rand(1, 3, device=CUDA))


def _generator_of_the_host() -> None:
    torch.rand(3, device=CUDA, generator=torch.Generator().manual_seed(0))


def _numpy() -> None:
    torch.rand(3, device=CUDA).numpy()


def _index_on_the_device() -> None:
    torch.rand(3)[torch.zeros(1, dtype=torch.long, device=CUDA)]


def _item_in_every_step() -> None:
    weight = torch.rand(3, device=CUDA, requires_grad=True)
    optimizer = torch.optim.Adam([weight], fused=True)
    for _ in range(3):
        loss = weight.square().sum()
        loss.backward()
        optimizer.step()
        loss.item()


def _list() -> None:
    torch.rand(3, device=CUDA).tolist()


def _mask() -> None:
    values = torch.rand(3, device=CUDA)
    values[values > 0.5]


def _nonzero() -> None:
    torch.rand(3, device=CUDA).nonzero()


def _copy_to_the_host() -> None:
    torch.rand(3).copy_(torch.rand(3).to("cuda", non_blocking=True))


def _sound_step() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 2)).to(CUDA)
    images = torch.rand(4, 1, 8, 8, device=CUDA, generator=torch.Generator(CUDA).manual_seed(0))
    network(images)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    with torch.autocast("cuda", torch.bfloat16):
        loss = network(images).float().square().sum()
    loss.backward()
    optimizer.step()


PLANTED: tuple[Callable[[], None], ...] = (
    _mixed_devices,
    _network_on_the_host,
    _generator_of_the_host,
    _numpy,
    _index_on_the_device,
    _item_in_every_step,
    _list,
    _mask,
    _nonzero,
    _copy_to_the_host,
    _sound_step,
)


def _events(ledger: Ledger) -> list[dict[str, Any]]:
    return [{**event._asdict(), "count": count} for event, count in ledger.events.most_common()]


def _find(ledger: Ledger, planted: Callable[[], None]) -> list[dict[str, Any]]:
    ledger.events.clear()
    with suppress(RuntimeError, TypeError):
        planted()
    return [{key: event[key] for key in ("kind", "what", "count")} for event in _events(ledger)]


def _run(ledger: Ledger, words: list[str]) -> dict[str, Any]:
    ledger.events.clear()
    said, start = StringIO(), process_time()
    with redirect_stdout(said), redirect_stderr(said):
        try:
            code = main([*words, "--debug"])
        except BaseException:
            code = traceback.print_exc() or 99
    seconds = process_time() - start
    return {"code": code, "seconds": seconds, "said": said.getvalue()[-4000:], "events": _events(ledger)}


def report(cases: Sequence[tuple[str, list[str]]]) -> dict[str, Any]:
    """Carry out named command lines, one after the other.

    Returns:
        `commands`: by name how each ended and what happened on the device; `planted`: what was found of each fault.

    """
    with virtual_device(PACKAGE) as ledger:
        found = {planted.__name__.strip("_"): _find(ledger, planted) for planted in PLANTED}
        return {"planted": found, "commands": {name: _run(ledger, words) for name, words in cases}}
