import math

import torch

from nayer_cli.lte import encoder

TEXTS = ["x"] * 1000


def test_onehot_is_the_identity() -> None:
    assert torch.equal(encoder.find("onehot").encode(TEXTS[:4]), torch.eye(4))


def test_random_is_standard_normal_and_as_wide_as_clip() -> None:
    vectors = encoder.find("random").encode(TEXTS)
    assert vectors.shape == (1000, 512)
    assert abs(vectors.mean()) < 0.01 and abs(vectors.std() - 1) < 0.01


def test_index_is_the_sinusoidal_position_code() -> None:
    vectors = encoder.find("index").encode(TEXTS)
    assert vectors.shape == (1000, 512)
    for index, wave in [(0, 0), (1, 0), (7, 100), (999, 255)]:
        angle = index / 10_000 ** (2 * wave / 512)
        assert math.isclose(vectors[index, wave], math.sin(angle), abs_tol=1e-6)
        assert math.isclose(vectors[index, 256 + wave], math.cos(angle), abs_tol=1e-6)


def test_index_puts_neighbours_nearest() -> None:
    vectors = encoder.find("index").encode(TEXTS)
    distances = torch.cdist(vectors[500:501], vectors)[0]
    assert distances[501] < distances[502] < distances[510]
