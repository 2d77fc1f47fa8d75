"""Seeds: the numbers that everyone gets, the seed plane, lists."""

from __future__ import annotations

import numpy as np
import pytest

from stylegan.errors import RequestError
from stylegan.seeds import parse_seeds, plane_seeds, z_of, z_of_seeds


def test_seed_zero_is_the_one_everybody_knows():
    z = z_of(0, 512)
    assert z.shape == (1, 512) and z.dtype == np.float32
    assert z[0, :3] == pytest.approx([1.7640524, 0.4001572, 0.978738], abs=1e-7)
    np.testing.assert_array_equal(z_of(85, 64), np.random.RandomState(85).randn(1, 64).astype(np.float32))


def test_seeds_together_are_as_alone():
    np.testing.assert_array_equal(z_of_seeds([3, 2**32 - 1], 8), np.concatenate([z_of(3, 8), z_of(2**32 - 1, 8)]))
    assert z_of_seeds([], 8).shape == (0, 8)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_out_of_range(seed):
    with pytest.raises(RequestError):
        z_of(seed, 8)


def test_lists():
    assert parse_seeds("1,2,5-10") == [1, 2, 5, 6, 7, 8, 9, 10]
    assert parse_seeds(" 3 , 1 - 2 ") == [3, 1, 2]


@pytest.mark.parametrize("text", ["", "a", "1,,2", "5-3", "-1", "1.5", "4294967296", "0-100000", "1;2", "0-99999,1"])
def test_bad_lists(text):
    with pytest.raises(RequestError):
        parse_seeds(text)


def test_a_whole_seed_stands_alone():
    assert plane_seeds(7) == [(7, 1.0)]
    assert plane_seeds(7, dx=0.25) == [(7, 0.75), (8, 0.25)]
    assert plane_seeds(7, dy=0.25) == [(7, 0.75), (107, 0.25)]


def test_plane_weights_add_up_and_wrap():
    corners = plane_seeds(2**32 - 1, 0.3, 0.6)
    assert [seed for seed, _ in corners] == [2**32 - 1, 0, 99, 100]
    assert sum(weight for _, weight in corners) == pytest.approx(1, abs=1e-12)
