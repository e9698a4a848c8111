"""Numbers that the released code computed against ours, from the same weights and inputs (docs/project/parity.md)."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from golden_parts import CHECKS, NORMALIZATION, FixedAugment, computing_in, golden_case, run_check, run_student
from nayer_cli.classifiers.model import Normalized

GOLDEN = load_file(Path(__file__).with_name("nayer_golden.safetensors"))


def ours(name: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    with computing_in(dtype):
        case = golden_case().to(dtype)
        return run_student(case) if name == "student" else run_check(case, CHECKS[name])


@pytest.mark.parametrize("name", [*CHECKS, "student"])
def test_in_float64_losses_gradients_and_state_are_those_of_the_released_code(name):
    expected = {key.partition("/")[2]: value for key, value in GOLDEN.items() if key.startswith(f"{name}/")}
    actual = ours(name, torch.float64)
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        scale = value.abs().max().item()
        torch.testing.assert_close(actual[key].float(), value.float(), rtol=0, atol=1e-6 * scale, msg=key)


@pytest.mark.parametrize("name", ["ce", "bn", "adv", "student"])
def test_in_float32_losses_agree_to_rounding(name):
    torch.testing.assert_close(ours(name, torch.float32)["loss"], GOLDEN[f"{name}/loss"], rtol=1e-5, atol=1e-5)


def test_the_networks_agree_on_some_images_and_not_on_others():
    case = golden_case()
    images = FixedAugment(4, True)(case.images)
    teacher, student = (Normalized(each, NORMALIZATION)(images).argmax(1) for each in (case.teacher, case.student))
    assert 0 < (teacher == student).sum() < case.batch
