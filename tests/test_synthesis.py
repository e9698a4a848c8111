from dataclasses import dataclass

import torch
from torch import nn

from nayer_cli.synthesis import Best, PastStatistics, steps_until, unnoticed, weigh
from tiny import parts


@dataclass
class Weights:
    ce: float = 2.0
    bn: float = 10.0


def test_each_term_is_weighed_by_the_setting_of_its_name():
    assert weigh(Weights(), {"ce": torch.tensor(3.0), "bn": torch.tensor(0.5)}) == 11


def test_what_belongs_to_the_lowest_loss_is_kept():
    best = Best()
    for loss in (3.0, 1.0, 2.0):
        value = torch.tensor(loss)
        best.offer(value, {"ce": 10 * value}, images=value.expand(2), features=-value)
    assert best.losses["ce"] == 10
    assert best.kept["images"].tolist() == [1, 1] and best.kept["features"] == -1


def test_the_course_of_the_cross_entropy_tells_after_how_many_steps_it_was_reached():
    def steps(*course: float) -> float:
        best = Best()
        for ce in course:
            best.offer(torch.tensor(0.0), {"ce": torch.tensor(ce)})
        return steps_until(best.course, 0.1).item()

    assert (steps(3.0, 0.5, 0.09, 0.2, 0.01), steps(0.05, 1.0)) == (2, 0)
    assert steps(0.1, torch.nan) != steps(0.1, torch.nan)  # never


def test_a_loss_that_is_not_finite_gives_way_and_never_wins():
    best = Best()
    for loss in (torch.nan, 5.0, torch.nan, -torch.inf):
        best.offer(torch.tensor(loss), {}, images=torch.tensor(loss))
    assert best.kept["images"] == -torch.inf or best.kept["images"] == 5


def test_past_statistics_scale_the_gradient_after_the_first_round():
    critic = parts().critic
    past, now = PastStatistics(critic, 0.9), critic.running
    mean = (now.mean + 1).requires_grad_(True)

    def gradient() -> torch.Tensor:
        return torch.autograd.grad(past.distance(now._replace(mean=mean)), mean)[0]

    fresh = gradient()
    past.mean.copy_(mean.detach())
    past.var.copy_(now.var)
    torch.testing.assert_close(gradient(), 0.1 * fresh)


def test_past_statistics_move_a_tenth_of_the_way():
    now = parts().critic.running
    past = PastStatistics(parts().critic, 0.9)
    past.remember(now, sound=torch.tensor(True))
    torch.testing.assert_close(past.mean, now.mean)
    past.remember(now._replace(mean=now.mean + 10), sound=torch.tensor(True))
    torch.testing.assert_close(past.mean, now.mean + 1)


def test_a_round_that_failed_leaves_no_trace_in_the_statistics():
    now = parts().critic.running
    past = PastStatistics(parts().critic, 0.9)
    past.remember(now, sound=torch.tensor(True))
    past.remember(now._replace(mean=now.mean * torch.nan, var=now.var + 1), sound=torch.tensor(False))
    assert torch.equal(past.mean, now.mean) and torch.equal(past.var, now.var)


def test_a_draw_can_go_unnoticed_by_running_statistics():
    norm = nn.BatchNorm1d(2)
    with unnoticed(norm):
        made = norm(5 + torch.randn(50, 2))
    assert made.mean().abs() < 1e-5  # of the batch's own statistics
    assert not norm.running_mean.any() and norm.num_batches_tracked == 0
