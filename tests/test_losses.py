import math

import pytest
import torch

from nayer_cli import losses


def test_kl_at_high_temperature_is_half_the_mean_squared_centred_gap():
    t, s = torch.randn(32, 10, dtype=torch.float64), torch.randn(32, 10, dtype=torch.float64)
    gap = (t - s) - (t - s).mean(1, keepdim=True)
    expected = gap.square().sum(1).mean() / (2 * 10)
    assert losses.distillation_kl(t, s, 200.0).item() == pytest.approx(expected.item(), rel=0.03)


def test_kl_of_equal_logits_is_zero():
    t = torch.randn(4, 3)
    assert losses.distillation_kl(t, t.clone(), 20.0).item() == pytest.approx(0, abs=1e-4)


def test_cross_entropy_by_hand():
    logits = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)]])
    assert losses.cross_entropy(logits, torch.tensor([0, 1])).item() == pytest.approx(
        (math.log(4) + math.log(4 / 3)) / 2
    )


def test_adversarial_term_by_hand():
    t, s = (torch.tensor([[math.log(odds), 0], [0, math.log(odds)]]) for odds in (3, 2))
    kl = 3 / 4 * math.log((3 / 4) / (2 / 3)) + 1 / 4 * math.log((1 / 4) / (1 / 3))
    assert losses.masked_adversarial_kl(t, s).item() == pytest.approx(-kl, abs=1e-6)


def test_adversarial_term_has_no_gradient_where_teacher_and_student_disagree():
    t = torch.tensor([[3.0, 0.0], [3.0, 0.0]])
    s = torch.tensor([[1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    losses.masked_adversarial_kl(t, s).backward()
    assert s.grad[0].abs().sum() > 0
    assert s.grad[1].abs().sum() == 0


def test_adversarial_term_divides_by_the_batch_not_by_the_agreeing_ones():
    t, s = torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    alone = losses.masked_adversarial_kl(t, s)
    disagreeing = torch.tensor([[0.0, 1.0]])
    both = losses.masked_adversarial_kl(t.repeat(2, 1), torch.cat([s, disagreeing]))
    assert both.item() == pytest.approx(alone.item() / 2)


def test_statistics_distance_is_the_sum_of_layer_norms():
    members = torch.tensor([[1.0, 0], [1, 0], [0, 1]])
    mean, var = torch.tensor([0.3, 0.4, 2]), torch.tensor([0.0, 0, 5])
    zero = torch.zeros(3)
    assert losses.statistics_distance(mean, var, zero, zero, members).item() == pytest.approx(0.5 + 2 + 5)


def test_statistics_that_are_no_number_have_no_distance():
    mean = torch.tensor([1.0, torch.nan])
    assert losses.statistics_distance(mean, mean, torch.zeros(2), torch.zeros(2), torch.eye(2)).isnan()


def test_statistics_distance_at_the_target_is_zero_with_zero_gradient():
    mean = torch.ones(3, requires_grad=True)
    target = torch.ones(3)
    loss = losses.statistics_distance(mean, target, target, target, torch.ones(3, 1))
    loss.backward()
    assert loss.item() == 0
    assert mean.grad.abs().sum() == 0


def test_jensen_shannon_is_symmetric_and_grows_with_the_difference():
    t, s = torch.randn(8, 5), torch.randn(8, 5)
    assert losses.jensen_shannon(t, s).item() == pytest.approx(losses.jensen_shannon(s, t).item(), rel=1e-4)
    assert losses.jensen_shannon(t, 5 * s) > losses.jensen_shannon(t, t + 0.1)


def test_jensen_shannon_by_hand():
    t, s = torch.tensor([[0.0, math.log(3)]] * 2), torch.tensor([[math.log(3), 0.0]] * 2)
    expected = math.log(1 / 2 / (1 / 4)) / 2 + math.log(1 / 2 / (3 / 4)) / 2
    assert losses.jensen_shannon(t, s, temperature=1.0).item() == pytest.approx(expected)
    assert losses.jensen_shannon(3 * t, 3 * s).item() == pytest.approx(expected)


def test_jensen_shannon_sees_certainty_as_99_percent():
    t, s = torch.tensor([[1e3, 0.0]]), torch.tensor([[0.0, 1e3]])
    expected = math.log(0.5 / 0.99) / 2 + math.log(0.5 / 0.01) / 2
    assert losses.jensen_shannon(t, s).item() == pytest.approx(expected, rel=1e-5)
    nearly = torch.tensor([[0.0, math.log(199)]])  # 0.5 % and 99.5 %
    for certain in (t, nearly):
        assert losses.jensen_shannon(certain, certain, temperature=1.0).item() == pytest.approx(0, abs=1e-7)


def test_total_variation_of_a_flat_image_is_zero_and_of_an_edge_is_not():
    flat = torch.full((1, 1, 4, 4), 0.5)
    edge = flat.clone()
    edge[..., 2:] = 1
    assert losses.total_variation(flat).item() == 0
    assert losses.total_variation(edge).item() > 0.5


def test_total_variation_has_four_directions():
    ramp = torch.arange(3.0) + torch.arange(3.0)[:, None]
    for x in (ramp, ramp.flip(1)):  # steps of 1 along rows and columns, of 2 along one diagonal, of 0 along the other
        assert losses.total_variation(x[None, None]).item() == pytest.approx(2 * 6**0.5 + 4)


def test_attention_ignores_scale_and_channel_count():
    maps = torch.rand(2, 3, 4, 4)
    doubled = torch.cat([maps, maps], dim=1) * 7
    assert losses.attention_transfer(maps, doubled).item() == pytest.approx(0, abs=1e-8)
    assert losses.attention_transfer(maps, maps.flip(3)).item() > 1e-4


def test_attention_by_hand():
    one_place, everywhere = torch.eye(2).view(2, 1, 1, 2), torch.ones(2, 1, 1, 2)
    half = 0.5**0.5  # of norm 1, in each image, are (1, 0) and (√½, √½)
    expected = ((1 - half) ** 2 + half**2) / 2
    assert losses.attention_transfer(one_place, everywhere).item() == pytest.approx(expected)


def test_relations_are_a_tenth_of_attention_to_like_positions_and_to_unlike_channels():
    t, s = torch.rand(2, 3, 2, 4), torch.rand(2, 3, 2, 4)

    def maps(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.nn.functional.normalize(x, dim=1).flatten(2)
        positions = (x.mT @ x).softmax(2)
        likeness = x @ x.mT
        channels = (likeness.amax(2, keepdim=True) - likeness).softmax(2)
        return 0.1 * (x @ positions.mT) + x, 0.1 * (channels @ x) + x

    expected = sum((a - b).abs().mean() for a, b in zip(maps(t), maps(s), strict=True))
    assert losses.relation_distance(t, s).item() == pytest.approx(expected.item(), rel=1e-5)


def test_relations_of_silent_positions_have_a_gradient():
    s = torch.zeros(1, 2, 3, 3, requires_grad=True)
    losses.relation_distance(torch.rand(1, 2, 3, 3), s).backward()
    assert s.grad.isfinite().all()


def test_a_sure_teacher_has_small_one_hot_and_entropy_terms():
    sure, torn = torch.tensor([[20.0, 0.0]]), torch.tensor([[1.0, 1.0]])
    assert losses.one_hot(sure) < 1e-6 and losses.entropy(sure) < 1e-6
    assert losses.one_hot(torn).item() == losses.entropy(torn).item() == pytest.approx(math.log(2))
    assert losses.entropy(torch.tensor([[-1e4, 0.0]])) == 0  # a class of probability 0 is no NaN


def test_balance_is_lowest_where_all_classes_are_as_frequent():
    assert losses.balance(20 * torch.eye(4)).item() == pytest.approx(-math.log(4))
    assert losses.balance(20 * torch.eye(4), base=10).item() == pytest.approx(-math.log10(4))
    assert losses.balance(torch.tensor([[500.0, 0.0], [500.0, 0.0]])) == 0


def test_activation_is_minus_the_mean_size():
    assert losses.activation(torch.tensor([[1.0, -3.0]])) == -2


def test_gaussian_kl_is_zero_and_flat_where_the_statistics_are_the_same():
    mean, var = torch.tensor([1.0, -2.0], requires_grad=True), torch.tensor([0.5, 4.0], requires_grad=True)
    distance = losses.gaussian_kl(mean, var, mean.detach(), var.detach())
    distance.backward()
    assert distance == 0 and not mean.grad.any() and not var.grad.any()
    apart = losses.gaussian_kl(torch.tensor([3.0]), torch.tensor([2.0]), torch.tensor([1.0]), torch.tensor([4.0]))
    assert apart.item() == pytest.approx((4 + 2) / 8 - 0.5 * math.log(0.5) - 0.5)


def test_logit_l1_is_a_mean_over_batch_and_classes():
    assert losses.logit_l1(torch.zeros(2, 3), torch.tensor([[1.0, -1.0, 0.0], [4.0, 0.0, 0.0]])) == 1


def test_the_clamped_divergence_is_dead_with_many_classes_and_alive_with_few():
    generator = torch.Generator().manual_seed(0)
    for classes, is_alive in ((10, True), (200, False)):
        t, s = 1.5 * torch.randn(2, 8, classes, generator=generator)
        losses.clamped_jensen_shannon(t, s.requires_grad_()).backward()
        assert s.grad.any() == is_alive


def test_contrast_wants_each_query_at_its_own_key():
    keys = torch.eye(4)
    assert (
        losses.contrast(keys, keys, 2, 0.1)
        < losses.contrast(keys, keys, 2, 1.0)
        < losses.contrast(keys, keys.flip(0), 2, 1.0)
    )
    one = torch.tensor([math.e, 1, 1, 1]).div(math.e + 3)[0].log().neg().item()
    assert losses.contrast(keys, keys, 2, 1.0).item() == pytest.approx(2 * one)  # now and remembered weigh the same
    assert losses.contrast(keys, keys, 4, 1.0).item() == pytest.approx(one)  # nothing is remembered yet


def test_activation_maps_leave_the_classifier_alone():
    features, weight = torch.rand(2, 3, 4, 4, requires_grad=True), torch.rand(5, 3, requires_grad=True)
    maps = losses.class_activation_maps(features, weight)
    assert maps.shape == (2, 5, 4, 4)
    assert torch.allclose(maps.mean((2, 3)), features.mean((2, 3)) @ weight.T)  # pooled, they are the logits
    maps.sum().backward()
    assert weight.grad is None and features.grad is not None


def test_a_gradient_map_weighs_channels_by_their_mean_gradient():
    features = torch.tensor([[[[1.0, 2.0]], [[10.0, 20.0]]]])
    gradient = torch.tensor([[[[1.0, 3.0]], [[-1.0, 0.0]]]])
    assert losses.gradient_activation_map(features, gradient).tolist() == [[[-3.0, -6.0]]]


def test_an_image_beyond_the_bound_gives_no_adversarial_gradient_and_the_others_keep_theirs() -> None:
    t = torch.tensor([[9.0, 0.0], [1.0, 0.0]], requires_grad=True)
    s = torch.tensor([[0.0, 9.0], [0.0, 0.5]], requires_grad=True)
    value = losses.bounded_adversarial_kl(t, s, 2.0)
    value.backward()
    near = losses.distillation_kl(t[1:], s[1:], 1.0)
    assert value.item() == pytest.approx(-(2.0 + near.item()) / 2)
    for logits in (t, s):
        assert logits.grad is not None and logits.grad[0].abs().max() == 0 and logits.grad[1].abs().max() > 0


def test_balance_is_that_of_the_batches_of_all_processes() -> None:
    t = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    mine, other = t.chunk(2)
    mean = other.softmax(1).mean(0)
    shared = losses.balance(mine, of_all=lambda own: (own + mean) / 2)
    torch.testing.assert_close(shared, losses.balance(t))
    assert shared < losses.balance(mine)


def test_balance_has_a_gradient_where_a_class_has_no_probability_at_all() -> None:
    t = torch.tensor([[0.0, 200.0], [0.0, 300.0]], requires_grad=True)
    value = losses.balance(t)
    value.backward()
    assert value.item() == 0 and t.grad is not None and t.grad.isfinite().all()


def test_the_clamped_divergence_is_that_of_clamped_probabilities_at_temperature_3():
    t, s = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 6.0]])
    p, q = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(2))
    divergence = 0.0
    for one, other in ((p, q), (1 - p, 1 - q)):
        m = (one + other) / 2
        divergence += 0.5 * m * (2 * math.log(m) - math.log(one) - math.log(other)) / 2
    assert losses.clamped_jensen_shannon(t, s).item() == pytest.approx(1 - divergence, abs=1e-6)


def test_the_clamped_divergence_never_sees_a_probability_of_one():
    far = losses.clamped_jensen_shannon(torch.tensor([[99.0, 0.0]]), torch.tensor([[0.0, 99.0]])).item()
    m, p, q = 0.5, 0.99, 0.01
    assert far == pytest.approx(1 - 0.5 * m * (2 * math.log(m) - math.log(p) - math.log(q)), abs=1e-6)


def test_entropy_is_a_mean_over_images():
    one = torch.tensor([[1.0, 1.0]])
    assert losses.entropy(one.expand(7, 2)).item() == pytest.approx(losses.entropy(one).item())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_losses_of_half_precision_are_computed_in_float32(dtype):
    t, s = torch.randn(4, 3).to(dtype), torch.randn(4, 3).to(dtype)
    for value in (losses.entropy(t), losses.logit_l1(t, s), losses.clamped_jensen_shannon(t, s), losses.balance(t)):
        assert value.dtype == torch.float32


def test_feature_distance_is_relative_to_the_teachers_features():
    t = torch.rand(2, 3, 4, 4) + 1
    assert losses.feature_distance(t, 0 * t) == 1 and losses.feature_distance(5 * t, 5 * t) == 0
    torch.testing.assert_close(losses.feature_distance(10 * t, 9 * t), torch.tensor(0.01))
