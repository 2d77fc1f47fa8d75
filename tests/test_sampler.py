"""The laws of the sampler: every epoch sees all, resuming changes nothing, ranks share one stream."""

from __future__ import annotations

import numpy as np
import pytest

from stylegan.data.sampler import Sampler
from stylegan.errors import DataError


@pytest.mark.parametrize("num_items", [1, 2, 7, 96])
def test_every_epoch_sees_every_item_once_in_a_new_order(num_items: int) -> None:
    epochs = Sampler(num_items, seed=3).next_batch(5 * num_items).reshape(5, num_items)
    assert (np.sort(epochs, axis=1) == np.arange(num_items)).all()
    if num_items == 96:
        assert len({tuple(epoch) for epoch in epochs.tolist()}) == 5


def test_indices_are_int64_and_decided_by_the_seed() -> None:
    first = Sampler(50, seed=0).next_batch(200)
    assert first.dtype == np.int64
    assert (first == Sampler(50, seed=0).next_batch(200)).all()
    assert (first != Sampler(50, seed=1).next_batch(200)).any()


def test_the_stream_is_the_same_on_every_machine_and_version() -> None:
    assert Sampler(10, seed=0).next_batch(20).tolist() == [6, 1, 0, 5, 3, 8, 7, 9, 2, 4, 7, 3, 5, 0, 1, 4, 6, 8, 9, 2]


@pytest.mark.parametrize("start", [0, 1, 31, 32, 33, 1000])
def test_resuming_anywhere_equals_going_on(start: int) -> None:
    whole = Sampler(32, seed=5).next_batch(start + 100)
    resumed = Sampler(32, seed=5, start=start)
    assert (resumed.next_batch(60) == whole[start : start + 60]).all()
    assert resumed.position == start + 60
    assert (resumed.next_batch(40) == whole[start + 60 :]).all()


@pytest.mark.parametrize("batches", [(1, 2, 3, 94), (50, 50), (100,)])
def test_the_size_of_the_batches_does_not_matter(batches: tuple[int, ...]) -> None:
    sampler = Sampler(30, seed=1)
    drawn = np.concatenate([sampler.next_batch(num) for num in batches])
    assert (drawn == Sampler(30, seed=1).next_batch(100)).all()
    assert sampler.epoch == pytest.approx(100 / 30)


@pytest.mark.parametrize("world", [2, 3, 8])
@pytest.mark.parametrize("start", [0, 17])
def test_the_ranks_together_draw_the_stream_of_one(world: int, start: int) -> None:
    ranks = [Sampler(20, seed=2, rank=rank, world=world, start=start) for rank in range(world)]
    together = np.stack([rank.next_batch(25) for rank in ranks], axis=1).ravel()
    assert (together == Sampler(20, seed=2, start=start).next_batch(25 * world)).all()
    assert {rank.position for rank in ranks} == {start + 25 * world}


def test_a_run_may_resume_on_another_number_of_ranks() -> None:
    two = [Sampler(20, seed=2, rank=rank, world=2) for rank in range(2)]
    before = np.stack([rank.next_batch(6) for rank in two], axis=1).ravel()
    three = [Sampler(20, seed=2, rank=rank, world=3, start=two[0].position) for rank in range(3)]
    after = np.stack([rank.next_batch(6) for rank in three], axis=1).ravel()
    assert (np.concatenate([before, after]) == Sampler(20, seed=2).next_batch(30)).all()


@pytest.mark.parametrize("wrong", [{"num_items": 0}, {"rank": 2, "world": 2}, {"start": -1}, {"seed": -1}])
def test_what_cannot_be_is_one_sentence(wrong: dict[str, int]) -> None:
    with pytest.raises(DataError, match=r"^[^\n]+\.?$"):
        Sampler(**{"num_items": 5, "seed": 0, **wrong})
