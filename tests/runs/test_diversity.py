import pytest
import torch

from nayer_cli.bank import MemoryBank
from nayer_cli.codes import CODES
from nayer_cli.generator import new_generator
from nayer_cli.machine.distributed import Group
from nayer_cli.runs.diversity import Diversity, compare, synthesis
from nayer_cli.synthesis import draw_labels
from tiny import SHAPE, normalized

CPU = torch.device("cpu")


def bank_of(*rounds: tuple[torch.Tensor, torch.Tensor], policy: str = "fifo", capacity: int = 100) -> MemoryBank:
    bank = MemoryBank(capacity, SHAPE, policy=policy)
    for images, labels in rounds:
        bank.add(images, labels, torch.Generator())
    return bank


def test_means_are_over_pairs_within_classes_and_then_over_classes():
    features = torch.tensor([[1.0, 0], [0, 2], [3, 0], [1, 1], [1, 1], [5, 0]])
    images = torch.tensor([0.0, 0.3, 0.6, 0.5, 0.5, 0.9]).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    found = compare(images, torch.tensor([0, 0, 0, 1, 1, 2]), features)  # a class with one image has no pair
    assert found.features == pytest.approx((2 / 3 + 0) / 2)
    assert found.pixels == pytest.approx(((0.3 + 0.3 + 0.6) / 3 + 0) / 2)


def test_equal_features_differ_by_exactly_nothing():
    row = torch.rand(1, 64)
    assert compare(torch.zeros(7, 1, 2, 2), torch.zeros(7), row.repeat(7, 1)) == (0.0, 0.0)


def test_where_no_class_has_a_pair_nothing_is_said():
    assert compare(torch.zeros(2, 1, 2, 2), torch.tensor([0, 1]), torch.ones(2, 3)) == (None, None)


@pytest.mark.parametrize("codes", CODES)
def test_codes_of_the_class_alone_give_one_image_a_class_within_a_round(codes):
    generator = new_generator("shallow", 16, SHAPE, 4)
    made = CODES[codes](torch.randn(4, 5), 16, 20, 0.5)
    made.renew(torch.Generator().manual_seed(0))
    labels = draw_labels(20, 4, torch.Generator())
    with torch.no_grad():
        images = generator(made(labels))
    found = Diversity(normalized(), CPU, Group(), 8)(bank_of((images, labels)), 20)
    alike = codes in ("onehot", "lte", "noisy-kept")
    assert (found["features_round"] < 1e-9, found["pixels_round"] == 0) == (alike, alike)


def test_the_newest_images_count_across_rounds_and_those_of_the_last_within():
    labels = torch.zeros(6, dtype=torch.long)
    first, last = torch.rand(1, *SHAPE).repeat(6, 1, 1, 1), torch.rand(1, *SHAPE).repeat(6, 1, 1, 1)
    found = Diversity(normalized(), CPU, Group(), 8)(bank_of((first, labels), (last, labels)), 6)
    assert found["images"] == 12 and found["features_round"] < 1e-9 < found["features"] and found["pixels_round"] == 0
    forgotten = Diversity(normalized(), CPU, Group(), 8)(bank_of((first, labels), (last, labels), capacity=6), 6)
    assert forgotten["images"] == 6 and forgotten["features"] < 1e-9


def test_a_reservoir_tells_nothing_of_rounds_and_an_empty_bank_nothing_at_all():
    images, labels = torch.rand(8, *SHAPE), torch.arange(8) % 2
    found = Diversity(None, CPU, Group(), 8)(bank_of((images, labels), policy="reservoir"), 8)
    assert found["features"] is None and found["pixels"] > 0 and found["pixels_round"] is None
    assert Diversity(normalized(), CPU, Group(), 8)(bank_of(), 8)["images"] == 0


def test_a_run_is_the_mean_over_its_rounds_warm_up_apart():
    def epoch(phase, rounds, share, steps, bounded):
        convergence = {"rounds": rounds, "share": share, "steps": steps, "bounded": bounded}
        return {"phase": phase, "convergence": convergence, "diversity": {"images": rounds}}

    records = [
        epoch("warm-up", 5, 0.0, None, 31.0),
        epoch("student", 1, 1.0, 4.0, 4.0),
        epoch("student", 3, 1 / 3, 8.0, 10.0),
    ]
    found = synthesis([*records, {"phase": "student"}])
    assert found["convergence"]["warm-up"] == {"rounds": 5, "share": 0.0, "steps": None, "bounded": 31.0}
    assert found["convergence"]["student"] == {"rounds": 4, "share": 0.5, "steps": 6.0, "bounded": 8.5}
    assert found["diversity"] == {"images": 3} and synthesis([]) == {"convergence": {}, "diversity": None}
