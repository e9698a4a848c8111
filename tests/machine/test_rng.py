import torch

from nayer_cli.machine.rng import Streams, seeded


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


def test_processes_draw_the_same_where_they_share():
    first, second = Streams(0, rank=0), Streams(0, rank=1)
    assert torch.equal(torch.rand(3, generator=first.shared("a")), torch.rand(3, generator=second.shared("a")))
    assert draw(first, "a") != draw(second, "a")


def test_another_number_of_processes_goes_on_with_what_is_shared_and_draws_nothing_twice():
    old = Streams(5)
    drawn = draw(old, "a"), torch.rand(3, generator=old.shared("g")).tolist(), torch.rand(2).tolist()
    state = old.state_dict()
    expected = torch.rand(3, generator=old.shared("g")).tolist()
    seen = []
    for rank in range(2):
        torch.manual_seed(0)
        new = Streams(5, rank=rank)
        new.load_shared(state, salt=40)
        assert torch.rand(3, generator=new.shared("g")).tolist() == expected
        seen += [draw(new, "a"), torch.rand(3).tolist()]
        again = Streams(5, rank=rank)
        again.load_state_dict(new.state_dict())
        assert draw(again, "b") == draw(new, "b") != draw(Streams(5, rank=rank), "b")
    assert len({tuple(numbers) for numbers in [*seen, *drawn]}) == 7


def test_seeded_leaves_the_global_generator_as_it_was():
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    with seeded(torch.Generator().manual_seed(1)):
        torch.rand(10)
    assert torch.equal(torch.rand(2), expected)
