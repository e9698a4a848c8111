import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nayer_cli.quant.lanes import LANE, can_saturate, largest_byte, safe_weight, worst_pair


@pytest.mark.parametrize(
    ("rows", "worst"),
    [
        ([[127, 127, 0]], 254),
        ([[127, -127, 1]], 128),
        ([[-100, 3, -60]], 160),
        ([[5, 0], [9, 8]], 17),
        ([[7], [-9]], 9),
        ([[0, 0]], 0),
    ],
)
def test_the_worst_pair_is_that_of_one_channel_and_one_sign(rows, worst):
    assert worst_pair(torch.tensor(rows, dtype=torch.int8)) == worst
    assert worst_pair(torch.tensor(rows, dtype=torch.int8)[..., None, None]) == worst


BYTES = st.integers(0, 255)
WEIGHTS = st.lists(st.integers(-127, 127), min_size=2, max_size=5)


@given(WEIGHTS, BYTES, st.data())
def test_what_cannot_saturate_does_not_whichever_weights_meet(row, largest, data):
    weight = torch.tensor([row], dtype=torch.int8)
    sums = [a * x + b * y for a, b in itertools.combinations(row, 2) for x in (0, largest) for y in (0, largest)]
    assert can_saturate(weight, largest) == (max(map(abs, sums)) > LANE)


@pytest.mark.parametrize("high", [1, 7, 15, 63, 127, 255])
@pytest.mark.parametrize("signed", [False, True])
def test_the_limit_is_the_last_weight_that_is_safe(high, signed):
    largest, most = largest_byte(min(high, 127) if signed else high, signed), 0
    most = safe_weight(largest)
    assert 2 * most * largest <= LANE < 2 * (most + 1) * largest


def test_seven_bits_and_a_step_are_safe_beside_whole_bytes():
    assert safe_weight(largest_byte(255, signed=False)) == safe_weight(largest_byte(127, signed=True)) == 64
    assert safe_weight(largest_byte(15, signed=False)) > 127
