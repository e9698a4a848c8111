from itertools import pairwise

import pytest

from nayer_cli.machine.turns import TURN, WARM_UP, interval, take_turns


class Machine:
    """A clock that goes on when a step is done, and what was done."""

    def __init__(self):
        self.time, self.done = 0.0, []

    def step(self, name, seconds, first=1.0):
        def work():
            self.time += first if name not in self.done else seconds
            self.done.append(name)

        return work


def test_steps_take_turns_after_a_warm_up():
    machine = Machine()
    steps = [machine.step(name, TURN, first=9.0) for name in "AB"]
    assert take_turns(steps, 4, lambda: machine.time) == [pytest.approx([TURN] * 4)] * 2
    assert "".join(machine.done) == "A" * WARM_UP + "B" * WARM_UP + "AB" * 4


def test_a_short_step_is_called_often_in_a_turn():
    machine = Machine()
    steps = [machine.step("A", TURN / 8), machine.step("B", 2 * TURN)]
    assert take_turns(steps, 2, lambda: machine.time)[0] == pytest.approx([TURN / 8] * 2)
    assert "".join(machine.done[2 * WARM_UP :]) == ("A" * 8 + "B") * 2


def test_a_clock_that_stands_still_is_survived():
    assert take_turns([lambda: None], 2, lambda: 0.0) == [[0.0, 0.0]]


@pytest.mark.parametrize(("count", "low", "high"), [(6, 0, 5), (8, 0, 7), (9, 1, 7), (21, 5, 15), (25, 7, 17)])
def test_the_interval_of_a_median_is_that_of_the_sign_test(count, low, high):
    found = interval(range(count)[::-1])
    assert found == ((count - 1) / 2, low, high)


def test_few_values_have_no_interval():
    with pytest.raises(ValueError, match="5 values"):
        interval(range(5))


def test_more_values_narrow_the_interval():
    widths = [(found := interval(range(count))).high - found.low for count in (6, 25, 100)]
    assert all(b / 25 < a for a, b in pairwise(widths))
