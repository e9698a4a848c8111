"""Loss functions against numbers that the released code of the papers computed in float64."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nayer_cli import losses

OURS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "kl_t_s_T1": lambda t, s: losses.distillation_kl(t, s, 1),
    "kl_t_s_T20": lambda t, s: losses.distillation_kl(t, s, 20),
    "jsdiv_T1_batchmean": lambda t, s: losses.jensen_shannon(t, s, 1),
    "jsdiv_T3_batchmean": lambda t, s: losses.jensen_shannon(t, s, 3),
    "pre_js_term(s,t.detach)": lambda t, s: losses.clamped_jensen_shannon(t.detach(), s),
    "balance_ln": lambda t, s: losses.balance(t),
    "onehot_argmax_ce": lambda t, s: losses.one_hot(t),
    "ie_log10": lambda t, s: losses.balance(t, base=10),
    "adv_masked": losses.masked_adversarial_kl,
    "dfq_entropy": lambda t, s: losses.entropy(t),
}


@pytest.mark.parametrize("classes", ["K=5", "K=150"])
@pytest.mark.parametrize("name", OURS)
def test_values_and_gradients(name: str, classes: str, shared: Path) -> None:
    golden = json.loads((shared / "golden" / "losses.json").read_text())[classes]
    t, s = (torch.tensor(golden[key], dtype=torch.float64, requires_grad=True) for key in "ts")
    value = OURS[name](t, s)
    value.backward()
    assert value.item() == pytest.approx(golden[name]["value"], abs=1e-10)
    for logits, wanted in ((t, golden[name]["grad_t_norm"]), (s, golden[name]["grad_s_norm"])):
        assert (0.0 if logits.grad is None else logits.grad.norm().item()) == pytest.approx(wanted, abs=1e-10)


def test_the_divergence_of_gaussians(shared: Path) -> None:
    golden = json.loads((shared / "golden" / "losses.json").read_text())["dfq_gaussian_kl"]
    keys = ("mean", "var", "running_mean", "running_var")
    value = losses.gaussian_kl(*(torch.tensor(golden[key], dtype=torch.float64) for key in keys))
    assert value.item() == pytest.approx(sum(golden["per_channel"]), abs=1e-10)
