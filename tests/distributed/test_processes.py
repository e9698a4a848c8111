"""What the processes of a job do together, against what one process does alone."""

import pytest
import torch

import jobs
from nayer_cli.errors import ConfigError
from nayer_cli.machine.distributed import Group
from peers import together


def test_a_group_averages_and_exchanges(tmp_path):
    first, second = together(jobs.exchange, tmp_path)
    for said in (first, second):
        assert said["average"] == [[0.5], [1.0]]
        assert said["gradient"] == [2.0, 5.0]  # of Σ mean², as if each had the mean for itself
        assert (said["largest"], said["from_main"], said["collect"], said["share"]) == (-3, {"rank": 0}, [0, 1], 4)
    assert (first["found"], second["found"]) == (False, True)
    assert (first["gather"], second["gather"]) == ([0, 1], [])


@pytest.mark.parametrize("bad", ["loss", "common", "own"])
def test_a_step_that_is_not_finite_in_one_process_is_left_out_in_all(bad):
    first, second = together(jobs.descend, bad)
    assert (first["skipped"], second["skipped"]) == (1, 1)
    assert first["taken"] == second["taken"] == [False, True]
    assert (first["common"], second["common"]) == (-0.5, -0.5)  # down the mean of the slopes 1 and 2
    assert (first["own"], second["own"]) == (0.5, 0.0)  # down a part of the mean, the process's own


def test_two_processes_learn_what_one_learns_from_the_same_global_batch():
    (alone,), (first, second) = together(jobs.learn, size=1), together(jobs.learn)
    assert first["student"].keys() == alone["student"].keys()
    alone["method"]["own noisy layers"] = list(alone["method"]["own noisy layers"][0].tensor_split(2))
    for one in (first, second):
        assert one["counts"] == alone["counts"] == [(16, 0), (48, 48), (80, 96), (112, 144)]
        for name in ("student", "method", "losses"):
            torch.testing.assert_close(one[name], alone[name], rtol=1e-4, atol=1e-5)
    for name in ("student", "method", "losses"):
        torch.testing.assert_close(second[name], first[name], rtol=0, atol=0)


@pytest.mark.parametrize("count", [7, 1])
def test_an_evaluation_counts_every_image_once(count):
    (alone,) = together(jobs.score, count, size=1)
    assert alone["scores"]["n"] == count
    for one in together(jobs.score, count):
        torch.testing.assert_close(one, alone)


@pytest.mark.parametrize("count", [5, 0])
def test_agreement_is_that_on_the_held_back_images_of_all(count):
    (alone,), both = together(jobs.agree, count, size=1), together(jobs.agree, count)
    assert both == [alone, alone]
    assert ("agreement" in alone) == (count > 0)


@pytest.mark.parametrize(("batch", "size"), [(15, 2), (2, 2), (100, 8)])
def test_a_batch_that_cannot_be_divided_is_refused(batch, size):
    with pytest.raises(ConfigError, match=f"method.batch = {batch} cannot be divided among {size} processes") as caught:
        Group(0, size).share(batch, "method.batch")
    assert f"multiple of {size}" in caught.value.hint
