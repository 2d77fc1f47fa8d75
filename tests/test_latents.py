"""Latents: their laws are the tests."""

from __future__ import annotations

import math

import pytest
import torch

from stylegan.errors import DirectionError, RequestError
from stylegan.latents import Direction, Latents

N, L, D = 3, 6, 8


def some(seed: int, num: int = N) -> Latents:
    return Latents(torch.randn(num, L, D, generator=torch.Generator().manual_seed(seed)))


A, B = some(0), some(1)
CENTRE = some(2, 1).ws[0, 0]
WAY = Direction("way", some(3, 1).ws[0], (1, 4))


def close(a: Latents, b: Latents) -> bool:
    return torch.allclose(a.ws, b.ws, atol=1e-5)


def same(a: Latents, b: Latents) -> bool:
    return torch.equal(a.ws, b.ws)


def test_from_w_repeats():
    w = torch.randn(2, D)
    latents = Latents.from_w(w, L)
    assert latents.ws.shape == (2, L, D) and latents.num_ws == L and len(latents) == 2
    assert all(torch.equal(latents.ws[:, layer], w) for layer in range(L))


def test_indexing_keeps_the_batch():
    assert same(A[1], Latents(A.ws[1:2]))
    assert same(A[-1], A[2])
    assert len(A[:2]) == 2
    with pytest.raises(IndexError):
        A[3]
    assert [len(one) for one in A] == [1, 1, 1]


def test_truncation_ends_and_composes():
    assert same(A.truncate(CENTRE, 1.0), A)
    assert same(A.truncate(CENTRE, 0.0), Latents(CENTRE.expand(N, L, D)))
    assert close(A.truncate(CENTRE, 0.5).truncate(CENTRE, 0.8), A.truncate(CENTRE, 0.4))
    for psi in (-1.0, -0.3, 0.7, 2.0):
        assert close(A.truncate(CENTRE, psi), Latents(CENTRE + psi * (A.ws - CENTRE)))


def test_cutoff_leaves_the_later_layers():
    cut = A.truncate(CENTRE, 0.5, cutoff=2)
    assert torch.equal(cut.ws[:, 2:], A.ws[:, 2:])
    assert torch.equal(cut.ws[:, :2], A.truncate(CENTRE, 0.5).ws[:, :2])
    assert same(A.truncate(CENTRE, 0.5, cutoff=0), A)
    assert same(A.truncate(CENTRE, 0.5, cutoff=L), A.truncate(CENTRE, 0.5))


def test_mix_all_none_and_some():
    assert same(A.mix(B, 1.0), B)
    assert same(A.mix(B, 0.0), A)
    mixed = A.mix(B, 1.0, (1, 2))
    assert torch.equal(mixed.ws[:, 1:3], B.ws[:, 1:3])
    assert torch.equal(mixed.ws[:, [0, 3, 4, 5]], A.ws[:, [0, 3, 4, 5]])
    weights = [0, 0.25, 0.5, 1, 0, 1]
    rows = [A.ws[:, layer].lerp(B.ws[:, layer], weight) for layer, weight in enumerate(weights)]
    assert close(A.mix(B, weights), Latents(torch.stack(rows, 1)))
    assert same(A.mix(A, 0.3), A)
    assert same(A.mix(B[0], 1.0)[2], B[0])


def test_moving_there_and_back():
    assert close(A.move(WAY, 1.7).move(WAY, -1.7), A)
    assert same(A.move(WAY, 0.0), A)
    assert close(A.move(WAY, 1.0).move(WAY, 0.5), A.move(WAY, 1.5))
    moved = A.move(WAY, 2.0)
    assert torch.equal(moved.ws[:, [0, 5]], A.ws[:, [0, 5]])
    assert close(Latents(moved.ws[:, 1:5]), Latents(A.ws[:, 1:5] + 2 * WAY.vector[1:5]))
    assert torch.equal(A.move(WAY, 2.0, (5, 5)).ws[:, :5], A.ws[:, :5])


@pytest.mark.parametrize("way", [Latents.lerp, Latents.slerp])
def test_ways_have_ends(way):
    assert close(way(A, B, 0.0), A)
    assert close(way(A, B, 1.0), B)
    assert close(way(A, B, 0.3), way(B, A, 0.7))
    assert close(way(A, A, 0.4), A)


def test_slerp_stays_on_the_sphere():
    unit = [Latents(x.ws / x.ws.norm(dim=2, keepdim=True)) for x in (A, B)]
    middle = unit[0].slerp(unit[1], 0.5)
    assert torch.allclose(middle.ws.norm(dim=2), torch.ones(N, L), atol=1e-5)
    angle = torch.acos((unit[0].ws * unit[1].ws).sum(2))
    assert torch.allclose(torch.acos((unit[0].ws * middle.ws).sum(2)), angle / 2, atol=1e-4)
    assert math.isfinite(float(A.slerp(Latents(-A.ws), 0.5).ws.sum()))


def test_operations_leave_the_original_alone():
    before = A.ws.clone()
    for after in (A.truncate(CENTRE, 0.5), A.mix(B, 0.5), A.move(WAY, 1.0), A.lerp(B, 0.5), A.slerp(B, 0.5)):
        after.ws.add_(1)
    assert torch.equal(A.ws, before)


def test_what_does_not_fit_is_refused():
    with pytest.raises(RequestError):
        Latents(torch.zeros(2, 3))
    with pytest.raises(RequestError, match="different models"):
        A.mix(Latents(torch.zeros(N, L + 1, D)), 0.5)
    with pytest.raises(RequestError, match="different models"):
        A.lerp(some(0, 2), 0.5)
    with pytest.raises(RequestError, match="6 weights"):
        A.mix(B, [0.5])
    with pytest.raises(RequestError, match="layers 0 to 5"):
        A.mix(B, 0.5, (3, 6))
    with pytest.raises(DirectionError, match="another model"):
        A.move(Direction("x", torch.zeros(L, D + 1), (0, 5)), 1.0)


def test_channels_move_in_s_space_where_their_layers_are():
    channel = torch.tensor([0.0, 2.0, 0.0])
    way = Direction("s1.1", torch.zeros(L, D), (1, 4), channels={1: channel, 4: channel * 3}, rows={1: 1, 4: 4})
    moved = A.move(way, 2.0)
    assert same(moved, A) and way.num_channels == 2 and WAY.num_channels == 0
    assert torch.equal(moved.offsets[1], 2 * channel[None]) and torch.equal(moved.offsets[4], 6 * channel[None])
    assert list(A.move(way, 2.0, (0, 1)).offsets) == [1] and not A.move(way, 0.0).offsets and not A.offsets
    back = moved.move(way, -1.5)
    assert torch.allclose(back.offsets[1], 0.5 * channel[None]) and torch.equal(moved.offsets[1], 2 * channel[None])
    assert torch.equal(moved.move(way, 1.0, (4, 4)).offsets[1], moved.offsets[1])
    with pytest.raises(DirectionError, match="another model"):
        A.move(Direction("x", torch.zeros(L, D), (0, 5), channels={0: channel}, rows={0: L}), 1.0)
    with pytest.raises(DirectionError, match="in which layer"):
        Direction("x", torch.zeros(L, D), (0, 5), channels={0: channel})
