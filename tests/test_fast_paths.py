"""Every fast way to compute is held against float32 in the usual layout, which is the reference."""

import pytest
import torch

from nayer_cli import losses
from nayer_cli.classifiers.model import load_classifier
from nayer_cli.config import DistillConfig, ModelConfig
from nayer_cli.critic import Critic, Judgement
from nayer_cli.runs import assemble

REFERENCE = {"device": "cpu", "amp": "off", "channels_last": "off", "compile": "off"}
# How far statistics may be off, in standard deviations of the channel, and logits, in the reference's own.
FAST = {
    "channels-last": ({"channels_last": "on"}, 1e-5),
    "bf16": ({"amp": "bf16", "channels_last": "on"}, 0.02),
    "bf16 in the usual layout": ({"amp": "bf16"}, 0.02),
    "fp16": ({"amp": "fp16", "channels_last": "on"}, 0.003),
}


def judged(**settings: str) -> tuple[Critic, Judgement, torch.Tensor]:
    """What the digits teacher says of the same images, and the gradient of the generator's losses in them."""
    config = DistillConfig(**{**REFERENCE, **settings})
    critic = Critic(assemble.model(load_classifier(ModelConfig(name="builtin:digits")), assemble.new_machine(config)))
    images = torch.rand(64, 1, 16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    judgement = critic.judge(images)
    now, running = judgement.statistics, critic.running
    bn = losses.statistics_distance(now.mean, now.var, running.mean, running.var, critic.members)
    (losses.cross_entropy(judgement.logits, torch.arange(64) % 10) + bn).backward()
    assert images.grad is not None
    return critic, judgement, images.grad


@pytest.fixture(scope="module")
def reference():
    return judged()


@pytest.mark.parametrize(("settings", "tolerance"), FAST.values(), ids=FAST)
def test_statistics_logits_and_gradients_are_those_of_the_reference(settings, tolerance, reference):
    _, expected, slope = reference
    _, found, found_slope = judged(**settings)
    deviation = expected.statistics.var.clamp_min(1e-3).sqrt()
    assert ((found.statistics.mean - expected.statistics.mean).abs() / deviation).max() < tolerance
    assert ((found.statistics.var - expected.statistics.var).abs() / deviation.square()).max() < 2 * tolerance
    assert (found.logits.float() - expected.logits).std() < tolerance * expected.logits.std()
    assert torch.nn.functional.cosine_similarity(found_slope.flatten(), slope.flatten(), dim=0) > 1 - tolerance


# While dynamo traces a network, it looks at the gradient of the images, which are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor:UserWarning")
@pytest.mark.slow
def test_compiled_networks_are_those_of_the_reference(reference):
    _, expected, slope = reference
    _, found, found_slope = judged(compile="on")
    torch.testing.assert_close(found.statistics.mean, expected.statistics.mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found_slope, slope, rtol=1e-2, atol=1e-4)
