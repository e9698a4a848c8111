import math
import signal

import numpy as np
import pytest
import torch
from torch import nn

from nayer_cli.errors import InputError, RunFailed
from nayer_cli.evaluate import (
    agreement,
    count_same,
    evaluate,
    evaluating,
    expected_calibration_error,
    measure,
    wilson_interval,
)
from nayer_cli.gates import Count
from nayer_cli.images.labelled import LabelledImages
from nayer_cli.images.source import ArraySource
from nayer_cli.machine.distributed import Group
from nayer_cli.machine.interruption import Interruption, Stopped
from nayer_cli.machine.precision import Precision
from nayer_cli.types import ImageShape
from tiny import normalized

CPU = torch.device("cpu")
SHAPE = ImageShape(1, 2, 2)


class Lookup(nn.Module):
    """Reads the row of a logit table off the first pixel."""

    def __init__(self, table):
        super().__init__()
        self.table = nn.Parameter(torch.as_tensor(table, dtype=torch.float32))
        self.norm = nn.BatchNorm2d(1)

    def forward(self, images):
        assert float(images.min()) >= 0 and float(images.max()) <= 1
        assert not self.training and not torch.is_grad_enabled()
        return self.table[(images[:, 0, 0, 0] * 255).round().long()]


def data(labels):
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None, None].repeat(2, 1).repeat(2, 2)
    return LabelledImages(ArraySource(images, np.array(labels), None), SHAPE)


def test_scores_equal_those_worked_out_by_hand():
    logits = torch.randn(40, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) % 7
    got = evaluate(Lookup(logits), data(labels.tolist()), device=CPU, batch_size=16).scores
    rank = (logits > logits.gather(1, labels[:, None])).sum(1)
    assert got.n == 40
    assert got.top1 == float((rank == 0).double().mean())
    assert got.top5 == float((rank < 5).double().mean())
    assert got.loss == pytest.approx(float(nn.functional.cross_entropy(logits, labels)), abs=1e-6)
    assert got.ci95 == wilson_interval(int((rank == 0).sum()), 40)
    confidence = logits.softmax(1).amax(1)
    assert got.ece == pytest.approx(expected_calibration_error(confidence, rank == 0), abs=1e-6)


def test_top5_of_three_classes_is_top3():
    assert evaluate(Lookup(torch.eye(3)), data([2, 0, 1]), device=CPU, batch_size=2).scores.top5 == 1.0


def test_calibration_error_of_two_bins():
    confidence = torch.tensor([0.95, 0.99, 0.55, 0.58])
    correct = torch.tensor([True, True, False, True])
    assert expected_calibration_error(confidence, correct) == pytest.approx((0.06 + 0.13) / 4)
    assert expected_calibration_error(torch.ones(3), torch.ones(3, dtype=torch.bool)) == 0


def test_bins_hold_their_upper_edge():
    # 0.2 ends the third of 15 bins, 0.21 is in the fourth: their gaps must not cancel.
    edge = expected_calibration_error(torch.tensor([0.2, 0.21]), torch.tensor([True, False]))
    assert edge == pytest.approx((0.8 + 0.21) / 2)


def test_wilson_interval_of_the_literature():
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I
    assert wilson_interval(0, 20) == pytest.approx((0, 0.1611), abs=1e-4)
    assert wilson_interval(20, 20)[1] == 1.0


def test_a_reference_adds_agreement_and_drop():
    labels = [0, 1, 0, 1]
    model = Lookup([[1, 0], [1, 0], [1, 0], [0, 1]])
    reference = Lookup([[1, 0], [0, 1], [1, 0], [0, 1]])
    found = evaluate(model, data(labels), device=CPU, batch_size=3, reference=reference)
    assert (found.scores.top1, found.reference.top1, found.agreement, found.drop) == (0.75, 1.0, 0.75, 0.25)
    assert found.seconds > 0
    known = measure(reference, data(labels), device=CPU, batch_size=3)
    assert evaluate(model, data(labels), device=CPU, batch_size=3, reference=known).agreement == 0.75


def test_the_drop_is_a_difference_of_counts():
    labels = [0] * 100
    table = torch.eye(2)
    model, reference = (Lookup(table[torch.tensor([0] * hits + [1] * (100 - hits))]) for hits in (93, 95))
    assert evaluate(model, data(labels), device=CPU, batch_size=50, reference=reference).drop == 0.02
    assert 0.95 - 0.93 != 0.02


def test_modes_are_restored_module_by_module():
    model = Lookup(torch.eye(2))
    model.train()
    model.norm.eval()
    evaluate(model, data([0, 1]), device=CPU, batch_size=2)
    assert (model.training, model.norm.training) == (True, False)
    with pytest.raises(ZeroDivisionError), evaluating(model):
        _ = 1 / 0
    assert model.training


def test_logits_that_are_not_finite_fail_the_run():
    with pytest.raises(RunFailed, match=r"^the loss is not finite on 1 of 3 images of the data$"):
        evaluate(Lookup([[1, 0], [math.nan, 0], [0, 1]]), data([0, 1, 1]), device=CPU, batch_size=2)


def test_a_label_without_an_output_is_an_error():
    for label in (2, 5):
        with pytest.raises(InputError, match=f"^the data has a label {label}, but the model has 2 classes$"):
            evaluate(Lookup(torch.eye(6)[:, :2]), data([0, label]), device=CPU, batch_size=2)


def test_agreement_on_images_without_labels():
    images = (torch.arange(4) / 255).view(4, 1, 1, 1)
    one, other, sizes = Lookup(torch.eye(4)), Lookup(torch.eye(4)[[0, 2, 3, 1]]), []
    one.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    assert agreement(one, other, images, batch_size=3) == 0.25
    assert sizes == [3, 1]
    with pytest.raises(InputError, match=r"^there are no images to compare two networks on$"):
        agreement(one, other, images[:0])


def test_without_a_reference_there_is_nothing_to_compare():
    found = evaluate(Lookup(torch.eye(2)), data([0, 1]), device=CPU, batch_size=2)
    assert (found.skipped, found.reference, found.agreement, found.drop) == (0, None, None, None)


def test_the_brightest_pixel_is_1():
    class Brightness(nn.Module):
        def forward(self, images):
            assert images.amax() == 1
            return images.flatten(1)

    white = LabelledImages(ArraySource(np.full((1, 2, 2, 1), 255, np.uint8), np.zeros(1, int), None), SHAPE)
    assert evaluate(Brightness(), white, device=CPU, batch_size=1).scores.n == 1


def test_the_first_two_bins_are_two_and_so_are_the_last():
    for low, high in ((1 / 30, 0.1), (0.92, 0.99)):
        found = expected_calibration_error(torch.tensor([low, high]), torch.tensor([True, False]))
        assert found == pytest.approx((1 - low + high) / 2)


def test_a_network_that_trains_in_bfloat16_is_measured_in_float32():
    model = normalized()
    images = torch.rand(8, 3, 8, 8)
    exact = model(images)
    model.precision = Precision("cpu", torch.bfloat16)
    assert not torch.equal(model(images), exact)
    with evaluating(model):
        assert torch.equal(model(images), exact)
    assert model.precision.dtype == torch.bfloat16


def test_intervals_stay_within_0_and_1():
    intervals = [wilson_interval(hits, n) for n in range(1, 200) for hits in (0, n)]
    assert all(0 <= low < high <= 1 for low, high in intervals)


def test_confidences_at_and_beyond_the_ends_have_a_bin():
    confidence = torch.tensor([0.0, 1.0, 1.0 + 1e-6])
    found = expected_calibration_error(confidence, torch.tensor([False, True, True]))
    assert found == pytest.approx(0, abs=1e-6)


def test_every_process_gets_the_scores_of_all_images():
    class Twins(Group):  # the other process has as many images, with as many skipped
        def collect(self, value):
            return [value, value]

    model, reference, images = Lookup([[1, 0], [1, 0]]), Lookup(torch.eye(2)), data([0, 1])
    images.prepare()
    images.unreadable["x.png"] = "damaged"
    found = evaluate(model, images, device=CPU, batch_size=2, reference=reference, group=Twins(0, 2))
    assert (found.scores.n, found.reference.n, found.skipped) == (4, 4, 2)
    assert (found.scores.hits, found.reference.hits, found.agreement) == (2, 4, 0.5)


def test_an_evaluation_ends_when_it_is_asked_to():
    interruption = Interruption(Group())
    interruption._ask(signal.SIGTERM, None)
    with pytest.raises(Stopped):
        evaluate(Lookup(torch.eye(2)), data([0, 1]), device=CPU, batch_size=2, interruption=interruption)


def test_seconds_are_those_of_the_pass(monkeypatch):
    monkeypatch.setattr("nayer_cli.evaluate.perf_counter", iter([10.0, 12.5]).__next__)
    assert evaluate(Lookup(torch.eye(2)), data([0, 1]), device=CPU, batch_size=2).seconds == 2.5


def test_data_without_images_is_an_error():
    empty = LabelledImages(ArraySource(np.zeros((1, 2, 2, 1), np.uint8), np.zeros(1, int), None), SHAPE, part=(1, 2))
    with pytest.raises(InputError, match=r"^the data holds no image that can be read$"):
        evaluate(Lookup(torch.eye(2)), empty, device=CPU, batch_size=2)


def test_there_may_be_no_images_to_count_on():
    assert count_same(normalized(), normalized(), torch.rand(0, 3, 8, 8)) == Count(0, 0)


def test_autocast_around_it_changes_nothing():
    model, x = nn.Linear(3, 2), torch.rand(8, 3)
    exact = model(x)
    with torch.autocast("cpu", dtype=torch.bfloat16), evaluating(model):
        assert torch.equal(model(x), exact)


def test_a_network_without_parameters_may_be_evaluated():
    with evaluating(nn.Flatten()):
        assert not torch.is_grad_enabled()
