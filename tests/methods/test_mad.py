from dataclasses import replace

import pytest
import torch

from nayer_cli import losses
from nayer_cli.bank import MemoryBank
from nayer_cli.critic import Critic
from nayer_cli.method import Batch, LoopState
from nayer_cli.methods import mad, zskt
from tiny import CLASSES, SHAPE, normalized, parts

CONFIG = mad.Config(code_size=6, width=2)
ADVERSARIAL = replace(CONFIG, bn=0.0, ce=0.0, past=0.0, bound=1e9)


def student(seed: int = 1) -> torch.nn.Module:
    return normalized(seed=seed).eval().requires_grad_(False)


def after(method: mad.Method, rounds: int) -> mad.Method:
    for _ in range(rounds):
        method.synthesize(student(), LoopState())
    return method


def both(method: mad.Method) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Parameters of the averaged generator beside those of the generator."""
    theirs = [*method.averaged.parameters(), method.averaged_classes]
    return list(zip(theirs, [*method.generator.network.parameters(), method.classes.detach()], strict=True))


def test_without_momentum_the_average_is_the_generator():
    method = after(mad.Method(replace(CONFIG, momentum=0.0, conditional="on"), parts()), 2)
    assert all(torch.equal(mine, other) for mine, other in both(method))


def test_with_nothing_but_momentum_the_average_stays_where_it_began():
    config = replace(CONFIG, momentum=1.0, conditional="on")
    start = [mine.clone() for mine, _ in both(mad.Method(config, parts()))]
    ends = both(after(mad.Method(config, parts()), 2))
    assert all(torch.equal(before, mine) for before, (mine, _) in zip(start, ends, strict=True))
    assert any(not torch.equal(mine, other) for mine, other in ends)


def test_it_approaches_a_generator_that_stands_still_by_powers_of_the_momentum():
    method = mad.Method(replace(CONFIG, momentum=0.5, lr_g=0.0), parts())
    for mine, _ in both(method):
        mine.add_(1.0)
    after(method, 3)
    for mine, other in both(method):
        torch.testing.assert_close(mine - other, torch.full_like(other, 0.5**3))


def test_running_statistics_are_copied_and_not_averaged():
    method = after(mad.Method(CONFIG, parts()), 2)
    pairs = zip(method.averaged.buffers(), method.generator.network.buffers(), strict=True)
    assert all(torch.equal(mine, other) for mine, other in pairs)


def test_without_prior_bound_and_average_it_is_zskt():
    method = after(mad.Method(ADVERSARIAL, parts()), 1)
    other = zskt.Method(zskt.Config(code_size=6, width=2, generator="tapered", clip=1e9), parts())
    other.synthesize(student(), LoopState())
    pairs = zip(method.generator.network.parameters(), other.generator.network.parameters(), strict=True)
    for mine, theirs in pairs:
        torch.testing.assert_close(mine.grad, theirs.grad)
    batch = next(method.replay(MemoryBank(8, SHAPE), 1))
    assert len(batch) == 8
    torch.testing.assert_close(
        method.student_loss(student(), batch).total, torch.as_tensor(other.student_loss(student(), batch))
    )


def test_the_student_learns_from_both_generators():
    method = mad.Method(replace(CONFIG, now=2.0, past=3.0), parts())
    for parameter in method.averaged.parameters():
        parameter.zero_()  # draws grey images
    batch = next(method.replay(MemoryBank(8, SHAPE), 1))
    assert batch.images.shape == (16, *SHAPE) and (batch.images[8:] == 0.5).all() and batch.images[:8].std() > 0
    loss = method.student_loss(student(), batch)
    halves = [
        losses.distillation_kl(method.parts.critic.logits(half), student()(half), 1.0) for half in batch.images.chunk(2)
    ]
    torch.testing.assert_close(loss.total, 2 * halves[0] + 3 * halves[1])
    torch.testing.assert_close([*loss.terms.values()], halves)


def test_batches_of_their_own_have_statistics_of_their_own():
    learner = normalized(seed=1).train()
    images = torch.cat([torch.rand(8, *SHAPE), torch.rand(8, *SHAPE) / 4])
    batch = Batch(images, torch.full((16,), -1))
    together, apart = (
        mad.Method(replace(CONFIG, separate=separate), parts()).student_loss(learner, batch).total
        for separate in (False, True)
    )
    assert not torch.allclose(together, apart)


def test_codes_of_a_conditional_generator_tell_their_classes():
    method = mad.Method(replace(CONFIG, conditional="on", norm=100.0, lr_g=0.1), parts())
    before = method.classes.detach().clone()
    batch = method.synthesize(student(), LoopState())
    assert batch.labels.tolist() == [0, 1, 2, 3] * 2 and {"ce", "norm"} < batch.losses.keys()
    assert not torch.equal(method.classes, before)
    after(method, 60)
    length = method.classes.detach().norm(dim=1) / CONFIG.code_size**0.5
    assert length.max() < 1.3


@pytest.mark.parametrize(("classes", "is_conditional"), [(200, False), (201, True)])
def test_many_classes_ask_for_a_conditional_generator(classes, is_conditional):
    method = mad.Method(CONFIG, parts(classes=classes))
    assert (len(method.classes) > 0) == is_conditional


def test_the_bound_is_the_logarithm_of_the_number_of_classes():
    method = mad.Method(replace(CONFIG, lr_g=0.0), parts())
    far = student()
    with torch.no_grad():
        far.network[-1].bias += torch.tensor([1e3, 0.0, 0.0, 0.0])
    adv = method.synthesize(far, LoopState()).losses["adv"]
    assert adv == pytest.approx(-torch.tensor(float(CLASSES)).log().item())


def test_a_teacher_without_statistics_asks_for_smooth_images():
    plain = normalized()
    for name in ("1", "4"):
        setattr(plain.network, name, torch.nn.Identity())
    given = parts()._replace(critic=Critic(plain))
    assert mad.Method(CONFIG, given).synthesize(student(), LoopState()).losses.keys() == {"tv", "ce", "adv"}
