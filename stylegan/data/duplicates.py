"""Pictures that look alike: a perceptual hash finds candidates, their coarse content confirms them.

The hash alone is no proof: aligned faces share most of it, though they are different people. N pictures, R resolution,
C channels, K = 16 frequencies a side.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

MAX_BITS = 6  # of 64, in which candidates may differ
MAX_DIFFERENCE = 6.0  # root mean square of 255, over the lowest 16 x 16 frequencies
_HASH_SIDE = 8
_CONTENT_SIDE = 16


def perceptual_hash(pixels: np.ndarray) -> int:
    """64 bits of one picture uint8 [R, R, C]: which of its 8 x 8 lowest cosine frequencies are above their median."""
    grey = pixels[..., :3].mean(axis=-1, dtype=np.float32)  # [R, R]
    basis = _cosines(pixels.shape[0], _HASH_SIDE)
    low = np.round((basis @ grey @ basis.T).ravel() / pixels.shape[0], 1)  # in tenths, or flat pictures would be chance
    low = np.pad(low, (0, _HASH_SIDE**2 - len(low)))
    return int(np.packbits(low > np.median(low)).view(np.uint64)[0])


def duplicate_groups(hashes: np.ndarray, pixels: Callable[[int], np.ndarray]) -> tuple[tuple[int, ...], ...]:
    """Groups of two or more indices that look alike, each ascending, in the order of their first; chains are closed.

    hashes uint64 [N]; `pixels(i)` gives uint8 [R, R, C], all of one size, and is asked only for candidates. Finds what
    was encoded or resized anew; not what was cropped, mirrored or recoloured.
    """
    content = _Content(len(hashes), pixels)
    group = np.arange(len(hashes))  # the first index of the group that each picture is in
    for i in range(len(hashes) - 1):
        rest = slice(i + 1, None)
        near = np.bitwise_count(hashes[rest] ^ hashes[i]) <= MAX_BITS
        candidates = i + 1 + np.flatnonzero(near & (group[rest] != group[i]))
        for j in candidates[content.differences(i, candidates) <= MAX_DIFFERENCE]:
            first, second = sorted((group[i], group[j]))
            group[group == second] = first
    order = np.argsort(group, kind="stable")
    places = np.flatnonzero(np.diff(group[order])) + 1
    return tuple(tuple(int(i) for i in part) for part in np.split(order, places) if len(part) > 1)


class _Content:
    """The coarse content of pictures, computed when first asked for: float16 [N, C * K * K]."""

    def __init__(self, num: int, pixels: Callable[[int], np.ndarray]) -> None:
        self._num, self._pixels = num, pixels
        self._rows: np.ndarray | None = None
        self._known = np.zeros(num, dtype=bool)

    def differences(self, i: int, others: np.ndarray) -> np.ndarray:
        """Root mean square difference of picture i and each of `others`, in 8-bit steps, [n]."""
        if not len(others):
            return np.empty(0)
        for place in (i, *others):
            if not self._known[place]:
                self._learn(int(place))
        found = []
        for part in np.array_split(others, -(-len(others) // 4096)):
            steps = self._rows[part].astype(np.float32) - self._rows[i].astype(np.float32)
            found.append(np.sqrt((steps**2).sum(axis=1)))
        return np.concatenate(found)

    def _learn(self, i: int) -> None:
        """The lowest frequencies of one picture, scaled so that the norm of a difference is its mean square root."""
        pixels = self._pixels(i)
        basis = _cosines(pixels.shape[0], _CONTENT_SIDE)
        low = [basis @ plane @ basis.T for plane in pixels.transpose(2, 0, 1).astype(np.float32)]  # C of [K, K]
        row = np.concatenate([part.ravel() for part in low]) / (pixels.shape[0] * pixels.shape[2] ** 0.5)
        if self._rows is None:
            self._rows = np.empty((self._num, len(row)), dtype=np.float16)
        self._rows[i] = row
        self._known[i] = True


@cache
def _cosines(resolution: int, num: int) -> np.ndarray:
    """The lowest orthonormal cosines of a resolution (DCT-II), float32 [min(num, R), R]."""
    num = min(num, resolution)
    phase = np.pi * np.arange(num)[:, None] * (np.arange(resolution) + 0.5) / resolution
    basis = np.cos(phase) * np.sqrt(2 / resolution)
    basis[0] /= np.sqrt(2)
    return basis.astype(np.float32)
