import torch

from nayer_cli.rng import Streams, seeded


def draw(streams: Streams, name: str) -> list[float]:
    return torch.rand(3, generator=streams[name]).tolist()


def test_purposes_ranks_and_seeds_have_their_own_numbers():
    numbers = [draw(Streams(seed, rank=rank), name) for seed in (0, 1) for rank in (0, 1) for name in "ab"]
    assert len({tuple(n) for n in numbers}) == 8
    assert draw(Streams(0), "a") == draw(Streams(0), "a")


def test_state_continues_the_sequence():
    streams = Streams(5)
    draw(streams, "a")
    state = streams.state_dict()
    expected = draw(streams, "a"), torch.rand(2).tolist()
    other = Streams(5)
    other.load_state_dict(state)
    assert (draw(other, "a"), torch.rand(2).tolist()) == expected


def test_seeded_leaves_the_global_generator_as_it_was():
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    with seeded(torch.Generator().manual_seed(1)):
        torch.rand(10)
    assert torch.equal(torch.rand(2), expected)
