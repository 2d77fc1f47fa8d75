"""Endless shuffled image indices whose every position can be computed, so that a run resumes exactly where it was."""

from __future__ import annotations

import numpy as np

from stylegan.errors import DataError


class Sampler:
    """Endless stream of indices: epoch after epoch, each a fresh permutation decided by (seed, epoch) alone.

    `start` counts the images already drawn by all ranks together; rank r of `world` draws positions start + r,
    start + r + world, ... of that one global stream, so the ranks together draw what a single rank would.
    """

    def __init__(self, num_items: int, seed: int, rank: int = 0, world: int = 1, start: int = 0) -> None:
        if num_items < 1:
            raise DataError("There are no images to draw from; add at least one picture to the data.")
        if not 0 <= rank < world:
            raise DataError(f"Rank {rank} does not exist among {world} processes; it must be 0 to {world - 1}.")
        if start < 0 or seed < 0:
            raise DataError(f"A sampler needs seed and start of zero or more, not seed {seed} and start {start}.")
        self.num_items, self.seed, self.rank, self.world, self.start = num_items, seed, rank, world, start
        self._num_drawn = 0
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    @property
    def position(self) -> int:
        """Images drawn by all ranks together so far, when each rank has drawn as many as this one."""
        return self.start + self._num_drawn * self.world

    @property
    def epoch(self) -> float:
        """Passes over the data made so far, by all ranks together."""
        return self.position / self.num_items

    def next_batch(self, num: int) -> np.ndarray:
        """The next `num` indices of this rank, int64 [num], each 0 to num_items - 1; may span epochs."""
        offsets = np.arange(self._num_drawn, self._num_drawn + num, dtype=np.int64)
        positions = self.start + self.rank + offsets * self.world  # [num] places in the global stream
        epochs, places = np.divmod(positions, self.num_items)
        indices = np.empty(num, dtype=np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            indices[here] = self._permutation(int(epoch))[places[here]]
        self._num_drawn += num
        return indices

    def _permutation(self, epoch: int) -> np.ndarray:
        """The order of one epoch, int64 [num_items]; RandomState because NumPy froze its stream for good."""
        if epoch != self._epoch:
            bits = np.random.MT19937(np.random.SeedSequence([self.seed, epoch]))
            self._order = np.random.RandomState(bits).permutation(self.num_items).astype(np.int64)
            self._epoch = epoch
        return self._order
