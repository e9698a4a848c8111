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
    mean, var = torch.tensor([3.0, 4, 2]), torch.tensor([0.0, 0, 5])
    zero = torch.zeros(3)
    assert losses.statistics_distance(mean, var, zero, zero, members).item() == pytest.approx(5 + 2 + 5)


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
