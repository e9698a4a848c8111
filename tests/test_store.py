import torch

from nayer_cli.store import Store


def store(capacity: int = 4) -> Store:
    return Store(capacity, features=torch.zeros(2, dtype=torch.float16), labels=torch.tensor(0))


def rows(*labels: int) -> dict[str, torch.Tensor]:
    return {"features": torch.tensor(labels)[:, None].expand(-1, 2) / 2, "labels": torch.tensor(labels)}


def test_the_newest_rows_take_the_places_of_the_oldest():
    kept = store()
    for start in (0, 3, 6):
        kept.push(rows(*range(start, start + 3)))
    assert len(kept) == 4 and kept.added == 9
    assert kept.read(kept.by_age())["labels"].tolist() == [5, 6, 7, 8]


def test_rows_stay_together_and_have_the_type_that_is_kept():
    kept = store()
    kept.push(rows(1, 2, 3))
    found = kept.read(torch.tensor([2, 0]))
    assert found["labels"].tolist() == [3, 1]
    assert found["features"].dtype == torch.float16 and found["features"].tolist() == [[1.5, 1.5], [0.5, 0.5]]


def test_of_more_rows_than_there_is_room_for_the_last_stay():
    kept = store()
    kept.push(rows(*range(11)))
    assert kept.read(kept.by_age())["labels"].tolist() == [7, 8, 9, 10]


def test_what_changed_is_told_once():
    kept = store()
    kept.push(rows(1, 2))
    kept.push(rows(3, 4, 5))
    assert kept.changed().tolist() == [0, 1, 2, 3]
    assert kept.changed().tolist() == []


def test_a_store_like_another_is_empty_and_takes_its_rows():
    other = store().like(2)
    assert len(other) == 0 and {name: value.shape for name, value in other.tensors.items()} == {
        "features": (2, 2),
        "labels": (2,),
    }
    other.push(rows(1))
    assert other.read(torch.tensor([0]))["features"].dtype == torch.float16


def test_slots_are_drawn_none_twice_before_all_came_once():
    store, generator = Store(9, rows=torch.zeros(1)), torch.Generator().manual_seed(0)
    store.push({"rows": torch.zeros(5, 1)})
    assert store.draw(3, generator).unique().numel() == 3
    assert sorted(store.draw(12, generator).bincount().tolist()) == [2, 2, 2, 3, 3]
