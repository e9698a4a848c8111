"""What each way to be faster gives: the time without it over the time with it, taking turns; 1 is nothing.

Measured with the first of the batch sizes (noisy layers: the largest), on the bare networks where it is about them.
"""

import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from itertools import chain
from typing import NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._inductor.exc import InductorError
from torch.fx.experimental.optimization import fuse

from nayer_cli import critic
from nayer_cli.codes import Noisy
from nayer_cli.engine import Engine

from .common import Figure, Step, compare, make_clock
from .networks import CLASSES, Bare, demonstration, epoch, running


class Way(NamedTuple):
    """The same work twice, and what there is to say beside the times."""

    name: str
    without: Step
    using: Step
    detail: dict[str, float] = {}  # noqa: RUF012 - never changed


def figures(options: Namespace) -> Iterator[Figure]:
    """Measure every way."""
    bare = Bare(options, options.generator_batch[0])
    clock = make_clock(options.clock, bare.device)
    ways = (denormals, layouts_and_precisions, fused_statistics, folded_teacher, batched_noise, compiled)
    for way in chain.from_iterable(find(options, bare) for find in ways):
        gain, quartiles, using_s, without_s = compare(way.using, way.without, options.repeats, clock)
        detail = {"without ms": 1e3 * without_s, "with ms": 1e3 * using_s} | way.detail
        yield Figure(way.name, gain, "×", None, quartiles, detail)


def denormals(options: Namespace, bare: Bare) -> Iterator[Way]:
    """Numbers too small to be normal become 0, since a processor may be slow with them.

    Networks with random weights have none; so the demonstration is measured, too, after it has run.
    """
    if bare.device.type != "cpu":
        return
    changes = {"schedule__batch_size": options.student_batch[0], "method__batch": options.generator_batch[0]}
    with running(options, method__g_steps=1, **changes) as job:
        yield from _flushed(job.engine, "")
    with demonstration(options) as job:
        job.engine.run()
        yield from _flushed(job.engine, " of the demonstration after its last epoch")


def _flushed(engine: Engine, where: str) -> Iterator[Way]:
    def setting(flush: bool, step: Step) -> None:
        torch.set_flush_denormal(flush)
        step()
        torch.set_flush_denormal(False)

    for name, counts in (("student step", {"rounds": 0, "kd_steps": 1}), ("round", {"rounds": 1, "kd_steps": 0})):
        step = epoch(engine, **counts)
        yield Way(f"denormals flushed, {name}{where}", partial(setting, False, step), partial(setting, True, step))


def layouts_and_precisions(options: Namespace, bare: Bare) -> Iterator[Way]:
    """Channels-last in both precisions, and bfloat16 with it."""
    usual, last = {"channels_last": "off"}, {"channels_last": "on"}
    for name, step in (("student", _student(options)), ("generator", Bare.generator_step)):

        def of(amp: str, layout: dict[str, str], step: Callable[[Bare], Step] = step) -> Step:
            return step(Bare(_with(options, amp=amp, **layout), bare.generator_batch))

        yield Way(f"channels-last in float32, {name} step", of("off", usual), of("off", last))
        yield Way(f"channels-last in bfloat16, {name} step", of("bf16", usual), of("bf16", last))
        yield Way(f"bfloat16 in channels-last, {name} step", of("off", last), of("bf16", last))


def fused_statistics(options: Namespace, bare: Bare) -> Iterator[Way]:
    """Statistics of BatchNorm's inputs by its own kernels instead of `torch.var_mean`."""

    def var_mean(x: Tensor) -> tuple[Tensor, Tensor]:
        var, mean = torch.var_mean(x.float(), dim=(0, 2, 3), correction=0)
        return mean, var

    images = bare.images(bare.generator_batch).sigmoid().requires_grad_(True)
    with running(options, method__batch=CLASSES) as job:
        judge = job.engine.method.parts.critic.judge

        def step() -> None:
            logits, statistics = judge(images)
            torch.autograd.grad(logits.square().mean() + statistics.mean.sum() + statistics.var.sum(), images)

        def without() -> None:
            with patch.object(critic, "channel_statistics", var_mean):
                step()

        yield Way("BatchNorm statistics by its own kernels, teacher forward and backward", without, step)


def folded_teacher(options: Namespace, bare: Bare) -> Iterator[Way]:
    """BatchNorm layers that follow a convolution multiplied into it, where the teacher gives logits alone."""
    folded, images = (
        fuse(deepcopy(bare.teacher)).to(memory_format=bare.machine.layout),
        bare.images(options.student_batch[0]),
    )

    @torch.no_grad()
    def forward(network: nn.Module) -> None:
        with bare.precision():
            network(images)

    yield Way("teacher folded, its forward", partial(forward, bare.teacher), partial(forward, folded))


def batched_noise(options: Namespace, bare: Bare) -> Iterator[Way]:
    """All noisy layers as one product instead of a linear layer for each group."""
    batch = max(options.generator_batch)
    noisy = Bare(options, batch).generator[0]
    assert isinstance(noisy, Noisy)
    labels = torch.arange(batch, device=bare.device) % CLASSES

    def looped() -> Tensor:
        groups = noisy.norm(noisy.pool[labels]).split(noisy.group)
        return torch.cat([torch.addmm(b, x, w) for b, x, w in zip(noisy.bias, groups, noisy.weight, strict=True)])

    def step(codes: Callable[[], Tensor]) -> None:
        with bare.precision():
            found = codes()
        torch.autograd.grad(found.float().sum(), noisy.parameters())

    yield Way(
        f"{noisy.groups} noisy layers as one product, forward and backward",
        partial(step, looped),
        partial(step, partial(noisy, labels)),
    )


def compiled(options: Namespace, bare: Bare) -> Iterator[Way]:
    """Both networks of the student step by `torch.compile`; on a CPU it needs a C++ compiler."""
    student_step = _student(options)
    without, using = (student_step(Bare(_with(options, compile=how), CLASSES)) for how in ("off", "on"))
    start = time.perf_counter()
    try:
        with torch.compiler.config.patch(force_disable_caches=True):  # what an earlier process compiled does not count
            using()
    except InductorError as error:
        print(f"torch.compile is left out: {error}", flush=True)
        return
    yield Way("torch.compile, student step", without, using, {"compiling s": time.perf_counter() - start})


def _with(options: Namespace, **changes: str) -> Namespace:
    return Namespace(**vars(options) | changes)


def _student(options: Namespace) -> Callable[[Bare], Step]:
    return lambda bare: bare.student_step(options.student_batch[0])
