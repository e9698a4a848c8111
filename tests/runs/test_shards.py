from pathlib import Path

import torch

from nayer_cli.bank import MemoryBank
from nayer_cli.machine.distributed import Group
from nayer_cli.runs.shards import Shards, open_bank, refill
from nayer_cli.storage.checkpoint import save_state
from nayer_cli.types import ImageShape

SHAPE = ImageShape(1, 2, 2)


def add(bank: MemoryBank, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(9, (count,), generator=generator)
    bank.add(torch.rand(count, *SHAPE, generator=generator), labels, generator)


def save(store: Shards) -> dict:
    manifest, shards = store.collect()
    for name, content in shards.items():
        save_state(store.folder / name, content)
    return manifest


def test_a_save_writes_only_what_is_new(tmp_path: Path):
    bank = MemoryBank(100, SHAPE)
    store = Shards(tmp_path, bank)
    for seed in range(3):
        add(bank, 10, seed)
        manifest = save(store)
    assert len(manifest["shards"]) == 3
    sizes = [path.stat().st_size for path in sorted(tmp_path.glob("shard-*"))]
    assert max(sizes) - min(sizes) < 16


def test_loading_restores_content_order_and_what_comes_next(tmp_path: Path):
    for policy in ("fifo", "reservoir"):
        bank = MemoryBank(25, SHAPE, policy=policy)
        store = Shards(tmp_path / policy, bank)
        for seed in range(6):
            add(bank, 10, seed)
            manifest = save(store)
        again = MemoryBank(25, SHAPE, policy=policy)
        Shards(tmp_path / policy, again).load([manifest])
        for either in (bank, again):
            add(either, 7, 99)
        assert torch.equal(bank.images, again.images)
        assert torch.equal(bank.labels, again.labels)


def test_shards_without_a_living_image_are_listed_no_longer(tmp_path: Path):
    bank = MemoryBank(20, SHAPE)
    store = Shards(tmp_path, bank)
    for seed in range(5):
        add(bank, 10, seed)
        manifest = save(store)
    assert len(manifest["shards"]) == 2


def dealt(
    counts: list[int], size: int, capacity: int, old_capacity: int = 100, policy: str = "fifo"
) -> list[list[int]]:
    """Labels that each of `size` processes holds, by age, of banks to which so many images were added."""
    olds = [MemoryBank(old_capacity, SHAPE) for _ in counts]
    for k, (old, count) in enumerate(zip(olds, counts, strict=True)):
        labels = torch.arange(count) * 10 + k  # ages and banks
        old.add(labels[:, None, None, None].expand(-1, *SHAPE) / 255, labels, torch.Generator())
    banks = [MemoryBank(capacity, SHAPE, policy=policy) for _ in range(size)]
    for rank, bank in enumerate(banks):
        refill(bank, iter(olds), list(map(len, olds)), sum(old.added for old in olds), Group(rank, size))
        assert torch.equal(bank.images[: len(bank), 0, 0, 0].long(), bank.labels[: len(bank)])
    return [bank.labels[bank.by_age()].tolist() for bank in banks]


def test_images_are_dealt_out_in_turn_by_age():
    assert dealt([3, 3], 1, 100) == [[0, 1, 10, 11, 20, 21]]
    assert dealt([6], 2, 100) == [[0, 20, 40], [10, 30, 50]]
    assert dealt([3, 1, 2], 2, 100) == [[0, 2, 12], [1, 10, 20]]
    assert dealt([1], 2, 100) == [[0], []]


def test_a_bank_that_was_full_is_full_again():
    assert dealt([4, 4], 1, capacity=4, old_capacity=2) == [[20, 21, 30, 31]]
    assert dealt([6, 6], 1, capacity=3, old_capacity=2) == [[41, 50, 51]]
    assert dealt([6, 6, 6], 2, capacity=4, old_capacity=2) == [[40, 40, 42, 51], [41, 41, 50, 52]]


def test_saved_parts_of_a_bank_are_loaded_by_another_number_of_processes(tmp_path: Path):
    manifests = []
    for rank in range(3):
        bank = MemoryBank(20, SHAPE)
        store = Shards(tmp_path, bank, Group(rank, 3))
        for seed in range(3):  # more than it holds
            add(bank, 8, 10 * rank + seed)
            manifest = save(store)
        manifests.append(manifest)
    held = [bank.held()[0] for bank in (open_bank(tmp_path, manifest) for manifest in manifests)]
    loaded = []
    for rank in range(2):
        bank = MemoryBank(30, SHAPE)
        store = Shards(tmp_path, bank, Group(rank, 2))
        store.load(manifests)
        again = MemoryBank(30, SHAPE)
        save(store)
        Shards(tmp_path, again, Group(rank, 2)).load([store.collect()[0], store.collect()[0]])
        assert torch.equal(again.images, bank.images) and again.added == bank.added == 36
        loaded.append(bank.held()[0])
    assert sorted(torch.cat(held).flatten(1).tolist()) == sorted(torch.cat(loaded).flatten(1).tolist())
