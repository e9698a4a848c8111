import pytest
import torch
from torch import nn

from nayer_cli.errors import ConfigError, EnvironmentFault, RunFailed
from nayer_cli.machine import distributed
from nayer_cli.machine.distributed import (
    Group,
    _peers,
    is_first_fault,
    join,
    leave,
    local_rank,
    local_size,
    running_statistics,
)
from tiny import normalized


def test_one_process_is_a_group_that_does_nothing():
    group, x = join(), torch.rand(3)
    before = x.clone()
    group.average([x])
    assert (group.rank, group.size, group.is_main) == (0, 1, True)
    assert torch.equal(x, before) and group.mean(x) is x
    assert (group.largest(3), group.from_main("a"), group.gather("a"), group.collect("a")) == (3, "a", ["a"], ["a"])
    assert group.share(3, "batch") == 3
    with group.main_first():
        pass


def test_statistics_of_normalization_layers_are_found_and_constants_are_not():
    model = normalized()
    layer = nn.BatchNorm1d(2)
    assert running_statistics(layer) == {"running_mean": layer.running_mean, "running_var": layer.running_var}
    assert {name.rpartition(".")[2] for name in running_statistics(model)} == {"running_mean", "running_var"}
    assert len(running_statistics(model)) == 4 and {"mean", "std"} <= dict(model.named_buffers()).keys()


def test_torchrun_tells_where_a_process_is(monkeypatch):
    assert (local_rank(), local_size()) == (0, 1)
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert (local_rank(), local_size()) == (3, 4)


def test_a_process_by_itself_tells_every_fault():
    assert is_first_fault() and is_first_fault()


def test_a_fault_is_told_where_nobody_can_say_whether_it_is_the_first(monkeypatch):
    class Gone:
        def add(self, key: str, count: int) -> int:
            raise RuntimeError("Broken pipe")

    monkeypatch.setattr(distributed, "_store", Gone())
    assert is_first_fault()


def test_processes_that_do_not_come_are_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(distributed, "TIMEOUT", distributed.TIMEOUT * 0)
    with pytest.raises(RuntimeError, match="some have not come"):
        distributed._wait_for(lambda: False)


def test_statistics_of_one_process_are_left_as_they_are():
    model = normalized()
    before = {name: value.clone() for name, value in running_statistics(model).items()}
    Group().average_statistics(model)
    assert all(torch.equal(value, before[name]) for name, value in running_statistics(model).items())


def with_a_peer_that_has(monkeypatch: pytest.MonkeyPatch, *values: float) -> Group:
    """A group of two, in which the other process always gives these values."""
    theirs = torch.tensor(values)

    def all_reduce(own: torch.Tensor, op: object = distributed.dist.ReduceOp.SUM) -> None:
        largest = op == distributed.dist.ReduceOp.MAX
        other = theirs.view_as(own)
        own.copy_(torch.maximum(own, other) if largest else own + other)

    monkeypatch.setattr(distributed.dist, "all_reduce", all_reduce)
    return Group(rank=0, size=2)


def test_tensors_of_any_shape_become_their_means_over_the_processes(monkeypatch):
    group = with_a_peer_that_has(monkeypatch, 3, 10, 20, 30, 40)
    one, table = torch.tensor(1.0), torch.tensor([[0.0, 2], [4, 6]])
    group.average([one, table])
    assert one.item() == 2
    assert table.tolist() == [[5, 11], [17, 23]]


def test_the_mean_of_the_processes_has_the_gradient_of_ones_own(monkeypatch):
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    mean = with_a_peer_that_has(monkeypatch, 3, 6).mean(x)
    mean.backward(torch.tensor([1.0, 10.0]))
    assert (mean.tolist(), x.tolist(), x.grad.tolist()) == ([2, 4], [1, 2], [1, 10])


def test_the_largest_value_of_all_processes_counts(monkeypatch):
    group = with_a_peer_that_has(monkeypatch, 5)
    assert (group.largest(3), group.largest(7)) == (5, 7)


def test_a_global_batch_is_shared_evenly_and_leaves_two_images_or_more_for_each():
    assert [Group(size=2).share(count, "batch") for count in (4, 6)] == [2, 3]
    for count in (2, 5):
        with pytest.raises(ConfigError, match="cannot be divided among 2 processes"):
            Group(size=2).share(count, "batch")


def test_memory_that_runs_out_in_a_message_is_no_lost_peer():
    with pytest.raises(EnvironmentFault, match="out of memory"), _peers():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    with pytest.raises(RunFailed, match="another process of this job has ended"), _peers():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:4711")


def test_the_group_is_ended():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    leave()
    assert not torch.distributed.is_initialized()
    leave()  # a second time there is nothing to end
