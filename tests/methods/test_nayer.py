from dataclasses import replace

import pytest
import torch

from nayer_cli import losses
from nayer_cli.critic import Critic
from nayer_cli.machine.distributed import Group
from nayer_cli.method import Batch, LoopState
from nayer_cli.methods.nayer import Config, Method
from tiny import normalized, parts

CONFIG = Config(batch=8, g_steps=2, code_size=6, width=2, g_life=10)


def student() -> torch.nn.Module:
    return normalized(seed=1).eval().requires_grad_(False)


def test_the_generator_starts_afresh_when_its_life_ends_and_only_in_the_first_round():
    method, seen = Method(CONFIG, parts()), []
    for epoch in (9, 10, 11, 20):
        for number in (0, 1):
            method.synthesize(student(), LoopState(warmup_epochs=20, epoch=epoch, round=number))
            seen.append(id(method.generator))
    first, tenth, twentieth = seen[0], seen[2], seen[6]
    assert seen == [first, first, tenth, tenth, tenth, tenth, twentieth, twentieth]
    assert len({first, tenth, twentieth}) == 3


def test_the_generator_lives_by_the_clock_of_the_run_and_by_that_of_the_student():
    method, seen = Method(replace(CONFIG, g_life=5), parts()), []
    for epoch in range(1, 12):
        before = method.generator
        method.synthesize(student(), LoopState(warmup_epochs=3, epoch=epoch))
        seen += [epoch] if method.generator is not before else []
    assert seen == [3, 5, 8, 10]


def test_the_adversarial_term_is_absent_during_warm_up():
    method = Method(CONFIG, parts())
    assert "adv" not in method.synthesize(student(), LoopState(warmup_epochs=2, epoch=1)).losses
    assert "adv" in method.synthesize(student(), LoopState(warmup_epochs=2, epoch=2)).losses


def test_the_kept_images_are_those_of_the_best_step_before_its_update():
    method = Method(replace(CONFIG, g_steps=1), parts())
    state = LoopState(epoch=1)
    batch = method.synthesize(student(), state)
    with pytest.raises(AssertionError):  # one update later the generator draws something else
        torch.testing.assert_close(method.draw(batch.labels), batch.images)


def test_without_batch_norm_total_variation_takes_over():
    teacher = normalized()
    teacher.network = torch.nn.Sequential(*[m for m in teacher.network if not isinstance(m, torch.nn.BatchNorm2d)])
    for size in (1, 4):  # a norm over four equal batches is twice as long
        method = Method(CONFIG, parts()._replace(critic=Critic(teacher), group=Group(0, size)))
        images, _, terms = method._draw(torch.arange(8) % 4, student(), adversarial=False)
        assert terms.keys() == {"ce", "tv"}
        torch.testing.assert_close(terms["tv"], losses.total_variation(images) * size**0.5)


def test_a_generator_may_live_for_ever():
    method = Method(replace(CONFIG, g_life=0), parts())
    first = method.generator
    method.synthesize(student(), LoopState(epoch=0))
    assert method.generator is first


def test_an_adversarial_term_of_weight_0_costs_nothing():
    batch = Method(replace(CONFIG, adv=0.0), parts()).synthesize(student(), LoopState(epoch=1))
    assert batch.losses.keys() == {"ce", "bn"}


def test_classes_beyond_whole_groups_repeat_only_as_in_the_released_code():
    def repeats(faithful: bool) -> bool:
        method = Method(replace(CONFIG, batch=7, g_steps=1, faithful=faithful), parts())
        drawn = [method.synthesize(student(), LoopState(epoch=1)).labels for _ in range(10)]
        assert all(labels[:4].tolist() == [0, 1, 2, 3] and len(labels) == method.batch for labels in drawn)
        return any(len(labels[4:].unique()) < 3 for labels in drawn)

    assert repeats(faithful=True) and not repeats(faithful=False)


def test_noisy_layers_are_not_averaged_over_the_processes():
    class Peers(Group):  # who have what this process has
        averaged = 0

        def average(self, tensors: list[torch.Tensor]) -> None:
            self.averaged += sum(tensor.numel() for tensor in tensors)

    group = Peers(0, 2)
    method = Method(replace(CONFIG, g_steps=1), parts()._replace(group=group))
    method.synthesize(student(), LoopState(epoch=1))
    common = [*method.codes.norm.parameters(), *method.generator.parameters()]
    assert group.averaged == sum(parameter.numel() for parameter in common) + 1  # the norm of the others' gradient


def test_steps_whose_gradient_is_not_finite_are_reported():
    method = Method(CONFIG, parts())
    assert method.synthesize(student(), LoopState(epoch=1)).skipped == 0
    torch.nn.init.constant_(method.parts.critic.teacher.network[0].weight, torch.nan)
    assert method.synthesize(student(), LoopState(epoch=1)).skipped == 2


def test_checkpoints_hold_random_streams_by_purpose_and_no_embeddings():
    method = Method(CONFIG, parts())
    method.synthesize(student(), LoopState(epoch=1))
    assert method.parts.rng.state_dict().keys() - {"torch", "salt"} == {
        "shared/generator",
        "noisy",
        "labels",
        "augment",
    }
    assert "pool" not in method.state_dict()


def test_the_generator_computes_in_channels_last():
    weights = [p for p in Method(CONFIG, parts()).generator.parameters() if p.ndim == 4]
    assert weights and all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


def test_more_steps_lower_the_cross_entropy():
    few, many = (
        Method(replace(CONFIG, g_steps=steps, bn=0.0), parts()).synthesize(student(), LoopState(epoch=1))
        for steps in (1, 60)
    )
    assert many.losses["ce"] < 0.95 * few.losses["ce"]


def test_features_are_compared_with_the_teachers_where_shapes_fit():
    plain, method = Method(CONFIG, parts()), Method(replace(CONFIG, features=3.0), parts())
    batch = Batch(torch.rand(4, *method.parts.shape), torch.zeros(4, dtype=torch.long))
    network = normalized(seed=1)
    found = method.student_loss(network, batch)
    assert found.terms["features"] > 0 and found.terms["kl"] == plain.student_loss(network, batch)
    assert found.total == found.terms["kl"] + 3 * found.terms["features"]
    assert method.student_loss(method.parts.critic.teacher, batch).terms["features"] == 0
