"""KAKR's student step against the released code, as it is and with the flag that lets the gradient through."""

from pathlib import Path

import pytest
import torch

from golden_parts import NORMALIZATION, computing_in
from nayer_cli.methods.kakr import Config, Method
from nayer_cli.replay_memory import Rehearsal
from released import assert_as_released, below, classifier, golden, released_parts


@pytest.mark.parametrize(("name", "meta"), [("kakr_released", "detached"), ("kakr_corrected", "second")])
def test_a_student_step_is_that_of_the_released_code(shared: Path, name: str, meta: str) -> None:
    tensors = golden(shared, name)
    with computing_in(torch.float64):
        mean, std = (torch.tensor(value).view(3, 1, 1) for value in NORMALIZATION)
        method = Method(Config(meta=meta, code_size=6, width=2), released_parts(tensors))
        student = classifier(tensors, "student.0").train().requires_grad_(True)
        optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
        images = torch.cat([tensors["acquire.normalized"], tensors["replay.normalized"]]) * std + mean
        total, terms = method.student_loss(student, Rehearsal(images, torch.full((14,), -1), 10))
        total.backward()
        gradients = {key: value.grad.clone() for key, value in student.network.named_parameters()}
        optimizer.step()
    torch.testing.assert_close(total.detach(), tensors["loss"], rtol=0, atol=1e-10)
    assert total == terms["ahead"] + terms["l1"]
    assert_as_released(gradients, below(tensors, "gradient"))
    assert_as_released(student.network.state_dict(), below(tensors, "student.1"))
