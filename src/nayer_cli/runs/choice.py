"""The way that `nayer quantize` takes if only bits are asked for: it keeps most within minutes of one core."""

import time
from dataclasses import replace

import torch

from nayer_cli.classifiers.model import Classifier
from nayer_cli.config import QuantizeConfig
from nayer_cli.errors import InputError
from nayer_cli.live_settings import BATCH, STEPS
from nayer_cli.machine.device import resolve_device
from nayer_cli.machine.distributed import Group
from nayer_cli.quant import graph
from nayer_cli.quant.moments import follow
from nayer_cli.quant.scheme import Scheme
from nayer_cli.types import Settings

SOFT = 2
"""Seconds of a step with rounded weights and activations, over those of a step without."""
IMAGES = 2
"""Images that pass forward and back, to see how long one takes."""


def settle(config: QuantizeConfig, teacher: Classifier, settings: Settings, group: Group) -> tuple[QuantizeConfig, str]:
    """Return the settings to go by, and a sentence that says what was chosen; it is empty where the user chose.

    Args:
        config: as the preset has it.
        teacher: what is to be quantized.
        settings: what the user asked for.
        group: all of its processes choose alike.

    """
    if settings.get("quantizer.mode") or config.quantizer.mode != "ptq" or STEPS not in config.method:
        return config, ""
    made, learned = group.from_main(_costs(config, teacher) if group.is_main else ("", ""))
    more = f"For fewer bits, --mode ptq --reconstruct takes{learned or ' longer'}, and --mode qat hours to days"
    if not _tells_ranges(teacher):
        return config, f"steps are chosen by {_images(config)}, which takes{made or ' minutes'}. {more}"
    chosen = replace(config, quantizer=replace(config.quantizer, calibration="analytic"))
    by_images = f"With {_images(config)} (--mode ptq) it takes{made or ' minutes'}"
    return chosen, f"steps are chosen without images (--method analytic), in seconds. {by_images}. {more}"


def _images(config: QuantizeConfig) -> str:
    return f"{config.schedule.warmup_rounds * config.method['batch']} images of {config.method['name']}"


def _costs(config: QuantizeConfig, teacher: Classifier) -> tuple[str, str]:
    """Say how long making images takes, and learning roundings; empty where that is no matter of the processor."""
    if resolve_device(config.device).type != "cpu":
        return "", ""
    minutes, quantizer = _seconds_an_image(teacher) / 60, config.quantizer
    made = _image_steps(config) * minutes
    learned = made + quantizer.reconstruct_steps * quantizer.reconstruct_batch * SOFT * minutes
    return f" about {made:.0f} minutes of one core", f" about {learned:.0f}"


def _image_steps(config: QuantizeConfig) -> int:
    method, schedule = config.method, config.schedule
    steps: int = max(schedule.warmup_epochs, 1) * schedule.warmup_rounds * method[BATCH] * method[STEPS]
    return steps


def _seconds_an_image(teacher: Classifier) -> float:
    """Return the processor's seconds for one image forward and back; the second of two passes counts."""
    images = torch.zeros(IMAGES, *teacher.shape, requires_grad=True)
    network = teacher.network.eval()
    seconds = 0.0
    for _ in range(2):
        start = time.process_time()
        torch.autograd.grad(network(images).float().sum(), images)
        seconds = time.process_time() - start
    return seconds / IMAGES


def _tells_ranges(teacher: Classifier) -> bool:
    """Say whether ranges can be followed through the network without images."""
    try:
        follow(graph.quantize(teacher.network, teacher.shape, Scheme(8, 8)), {}, teacher.normalization)
    except InputError:
        return False
    return True
