from pathlib import Path
from types import SimpleNamespace

import torch

from nayer_cli.bank import MemoryBank, _bring
from nayer_cli.types import ImageShape

SHAPE = ImageShape(1, 2, 2)


def filled(count: int, capacity: int, **options: object) -> MemoryBank:
    """A bank to which images of value n / 255 and label n were added one by one."""
    bank = MemoryBank(capacity, SHAPE, **options)
    generator = torch.Generator().manual_seed(0)
    for n in range(count):
        bank.add(torch.full((1, *SHAPE), n / 255), torch.tensor([n]), generator)
    return bank


def test_fifo_keeps_the_newest():
    assert sorted(filled(10, 4).labels.tolist()) == [6, 7, 8, 9]


def test_one_batch_larger_than_the_bank_leaves_its_end():
    bank = MemoryBank(3, SHAPE)
    bank.add(torch.zeros(8, *SHAPE), torch.arange(8), torch.Generator())
    assert sorted(bank.labels.tolist()) == [5, 6, 7]


def test_reservoir_keeps_a_uniform_sample():
    kept = torch.zeros(40)
    for seed in range(300):
        bank = MemoryBank(10, SHAPE, policy="reservoir")
        generator = torch.Generator().manual_seed(seed)
        for start in range(0, 40, 8):
            bank.add(torch.zeros(8, *SHAPE), torch.arange(start, start + 8), generator)
        kept[bank.labels] += 1
    assert (kept / 300 - 0.25).abs().max() < 0.12


def test_the_second_of_two_images_takes_the_only_slot_half_of_the_time():
    second = 0
    for seed in range(400):
        bank = MemoryBank(1, SHAPE, policy="reservoir")
        bank.add(torch.zeros(2, *SHAPE), torch.arange(2), torch.Generator().manual_seed(seed))
        second += int(bank.labels[0])
    assert 160 < second < 240


def test_images_come_back_rounded_to_256_levels():
    bank = MemoryBank(50, SHAPE)
    images = torch.rand(50, *SHAPE)
    bank.add(images, torch.zeros(50, dtype=torch.long), torch.Generator())
    assert (bank.take(torch.arange(50))[0] - images).abs().max() <= 0.5 / 255 + 1e-6


def test_a_pass_shows_every_image_once():
    batches = list(filled(12, 12).batches(4, 3, torch.Generator().manual_seed(1)))
    assert sorted(torch.cat([labels for _, labels in batches]).tolist()) == list(range(12))
    assert all(torch.equal((images[:, 0, 0, 0] * 255).round().long(), labels) for images, labels in batches)


def test_a_batch_may_be_larger_than_the_bank():
    images, _ = next(filled(3, 8).batches(7, 1, torch.Generator()))
    assert len(images) == 7


def test_a_memory_mapped_bank_holds_the_same(tmp_path: Path):
    mapped = filled(6, 4, file=tmp_path / "bank.mmap")
    assert torch.equal(mapped.images, filled(6, 4).images)
    assert (tmp_path / "bank.mmap").stat().st_size == 4 * 4


def test_slots_by_age_start_with_the_oldest():
    assert filled(3, 4).labels[filled(3, 4).by_age()].tolist() == [0, 1, 2]
    assert filled(10, 4).labels[filled(10, 4).by_age()].tolist() == [6, 7, 8, 9]


def test_a_bank_that_is_refilled_forgets_the_oldest_first():
    for count, added, fit in ((3, 3, 3), (4, 9, 4), (6, 6, 4), (3, 9, 4), (0, 9, 0)):
        bank = filled(2, 4)
        bank.changed()
        slots = bank.refill(count, added)
        assert len(bank) == len(slots.unique()) == fit
        assert sorted(bank.changed().tolist()) == sorted(slots.tolist())
        bank.write(
            slots, {"images": torch.zeros(fit, *SHAPE, dtype=torch.uint8), "labels": torch.arange(100, 100 + fit)}
        )
        bank.add(torch.zeros(1, *SHAPE), torch.tensor([7]), torch.Generator())
        kept = bank.labels[bank.by_age()].tolist()
        assert kept == [*range(100, 100 + fit), 7][-4:]


def test_a_pass_that_was_begun_goes_on_where_it_stopped():
    whole = [labels.tolist() for _, labels in filled(12, 12).batches(5, 4, torch.Generator().manual_seed(1))]
    bank, generator = filled(12, 12), torch.Generator().manual_seed(1)
    begun = bank.batches(5, 4, generator)
    first = [next(begun)[1].tolist() for _ in range(2)]
    again = filled(12, 12)
    again.pending = bank.pending
    assert first + [labels.tolist() for _, labels in again.batches(5, 2, generator)] == whole
    assert again.pending is None


def test_images_and_labels_of_a_device_come_to_the_host_in_one_copy():
    images, labels = torch.randint(256, (3, *SHAPE), dtype=torch.uint8), torch.tensor([7, 2**40, 0])
    device = SimpleNamespace(type="cuda")  # as if they came from one
    pixels = SimpleNamespace(device=device, flatten=images.flatten, shape=images.shape)
    there = _bring(pixels, labels, torch.device("cpu"))
    assert torch.equal(there[0], images) and torch.equal(there[1], labels)


def test_a_batch_is_stored_as_if_its_images_had_come_one_by_one():
    for policy in ("fifo", "reservoir"):
        bank = MemoryBank(3, SHAPE, policy=policy)
        pixels = torch.arange(20.0).view(20, 1, 1, 1).expand(20, *SHAPE) / 255
        bank.add(pixels[:8], torch.arange(8), torch.Generator().manual_seed(5))
        bank.add(pixels[8:], torch.arange(8, 20), torch.Generator().manual_seed(6))
        images, labels = bank.held()
        assert bank.added == 20 and len(labels) == 3
        assert (images == labels.view(3, 1, 1, 1)).all()


def test_a_reservoir_draws_from_its_generator_alone():
    kept = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        kept.append(filled(40, 4, policy="reservoir").labels.tolist())
    assert kept[0] == kept[1]


def test_no_pass_is_begun_before_it_is_needed():
    bank = filled(12, 12)
    next(bank.batches(12, 2, torch.Generator()))
    assert len(bank.pending) == 0


def test_written_slots_are_told_once():
    assert MemoryBank(3, SHAPE).changed().dtype == torch.long
    bank = filled(2, 3)
    assert bank.changed().tolist() == [0, 1]
    assert bank.changed().tolist() == []
    bank.add(torch.zeros(5, *SHAPE), torch.arange(5), torch.Generator())
    assert bank.changed().tolist() == [0, 1, 2]


def test_a_bank_comes_back_from_its_state():
    for count in (2, 9):
        bank, other = filled(count, 4), MemoryBank(4, SHAPE)
        other.load_state_dict(bank.state_dict())
        assert (other.added, len(other)) == (count, min(count, 4))
        assert torch.equal(other.held()[0], bank.held()[0]) and torch.equal(other.held()[1], bank.held()[1])
        assert bank.state_dict().keys() == {"added", "images", "labels"}


def test_a_file_keeps_images_of_any_shape(tmp_path: Path):
    shape = ImageShape(3, 2, 4)
    bank = MemoryBank(5, shape, file=tmp_path / "bank.mmap")
    images = torch.randint(256, (5, *shape)) / 255
    bank.add(images, torch.arange(5), torch.Generator())
    assert (tmp_path / "bank.mmap").stat().st_size == 5 * 3 * 2 * 4
    assert (tmp_path / "bank.mmap").read_bytes() == (images * 255).round().byte().numpy().tobytes()


def test_unused_slots_have_labels_that_are_classes():
    assert MemoryBank(3, SHAPE).labels.tolist() == [0, 0, 0]


def test_what_a_reservoir_does_not_keep_leaves_no_trace():
    bank = filled(4, 4, policy="reservoir")
    generator = torch.Generator().manual_seed(0)
    for n in range(4, 200):
        before = bank.images.clone()
        bank.changed()
        bank.add(torch.full((1, *SHAPE), n / 255), torch.tensor([n]), generator)
        written = (bank.images != before).flatten(1).any(1).nonzero().flatten()
        assert torch.equal(bank.changed(), written) and len(written) <= 1
