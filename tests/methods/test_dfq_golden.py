"""DFQ against numbers that the comparison loop of CMI computed from the same weights and codes."""

from pathlib import Path

import torch

from golden_parts import computing_in
from nayer_cli.bank import MemoryBank
from nayer_cli.method import LoopState
from nayer_cli.methods.dfq import Config, Method
from nayer_cli.synthesis import weigh
from nayer_cli.types import ImageShape
from released import assert_as_released, classifier, generator_state, golden, load, released_parts


def test_three_steps_of_the_generator_and_what_the_student_then_sees(shared: Path) -> None:
    given = golden(shared, "dfq")
    # The images that the student sees in the file were drawn with running statistics.
    config = Config(code_size=6, width=2, generator="shallow", settled=True)
    with computing_in(torch.float64):
        method, student = Method(config, released_parts(given)), classifier(given, "student")
        load(method.generator.network, generator_state(given, "generator.0"))
        codes = iter(given[f"codes.{name}"] for name in (0, 1, 2, "replay"))
        method.generator.codes = lambda count: next(codes)
        rounds = [method.synthesize(student, LoopState(round=number)) for number in range(3)]
        totals = torch.stack([weigh(config, batch.losses) for batch in rounds])
        (replayed,) = method.replay(MemoryBank(1, ImageShape(3, 8, 8)), 1)
        kl = method.student_loss(student, replayed)
    torch.testing.assert_close(totals, given["losses"], rtol=0, atol=1e-10)
    assert_as_released(method.generator.network.state_dict(), generator_state(given, "generator.3"))
    teacher = method.parts.critic.teacher
    seen = {"last": rounds[-1].images, "replayed": (replayed.images - teacher.mean) / teacher.std}
    assert_as_released(seen, {"last": given["images.last"], "replayed": given["replayed.normalized"]})
    torch.testing.assert_close(kl, given["kd.T1"], rtol=0, atol=1e-10)
