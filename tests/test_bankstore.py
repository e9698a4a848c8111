from pathlib import Path

import torch

from nayer_cli.bank import MemoryBank
from nayer_cli.bankstore import BankStore
from nayer_cli.checkpoint import save_state
from nayer_cli.types import ImageShape

SHAPE = ImageShape(1, 2, 2)


def add(bank: MemoryBank, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(9, (count,), generator=generator)
    bank.add(torch.rand(count, *SHAPE, generator=generator), labels, generator)


def save(store: BankStore) -> dict:
    manifest, shards = store.collect()
    for name, content in shards.items():
        save_state(store.folder / name, content)
    return manifest


def test_a_save_writes_only_what_is_new(tmp_path: Path):
    bank = MemoryBank(100, SHAPE)
    store = BankStore(tmp_path, bank)
    for seed in range(3):
        add(bank, 10, seed)
        manifest = save(store)
    assert len(manifest["shards"]) == 3
    sizes = [path.stat().st_size for path in sorted(tmp_path.glob("shard-*"))]
    assert max(sizes) - min(sizes) < 16


def test_loading_restores_content_order_and_what_comes_next(tmp_path: Path):
    for policy in ("fifo", "reservoir"):
        bank = MemoryBank(25, SHAPE, policy=policy)
        store = BankStore(tmp_path / policy, bank)
        for seed in range(6):
            add(bank, 10, seed)
            manifest = save(store)
        again = MemoryBank(25, SHAPE, policy=policy)
        BankStore(tmp_path / policy, again).load([manifest])
        for either in (bank, again):
            add(either, 7, 99)
        assert torch.equal(bank.images, again.images)
        assert torch.equal(bank.labels, again.labels)


def test_shards_without_a_living_image_are_listed_no_longer(tmp_path: Path):
    bank = MemoryBank(20, SHAPE)
    store = BankStore(tmp_path, bank)
    for seed in range(5):
        add(bank, 10, seed)
        manifest = save(store)
    assert len(manifest["shards"]) == 2
