"""Has the generator learned, or learned by heart? Distances to the training pictures, and the closest pairs to look at.

T training, M fake and H held-out pictures, D features. A mirrored copy is a copy: pictures come with a second row of
features, those of their mirror image, as [M, 2, D]; plain [M, D] counts no mirroring.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from stylegan.errors import DataError
from stylegan.metrics.manifold import distances
from stylegan.pixels import grid

_TWIN = 0.01  # of the median distance to the nearest other: training pictures closer than this are one picture twice
_BLOCK = 1024


@dataclass(frozen=True)
class Neighbours:
    """For each of M pictures its nearest training picture, how far it is, and how far that one's nearest other is."""

    index: torch.Tensor  # int64 [M]
    distance: torch.Tensor  # [M]
    reach: torch.Tensor  # [M]

    @property
    def ratio(self) -> torch.Tensor:
        """Distance over reach, [M]; below 1 the picture is closer to a training picture than any other one is."""
        return self.distance / self.reach.clamp(min=1e-12)

    @property
    def authentic(self) -> float:
        """AuthPct, 0 to 100: the share of pictures that are no copies (arXiv 2102.08921, section 3.3)."""
        return 100 * (self.ratio >= 1).double().mean().item()


def nearest_other(train: torch.Tensor) -> torch.Tensor:
    """Distance of each training picture [T, D] or [T, 2, D] to the nearest that is not the same picture again, [T]."""
    if len(train) < 3:
        raise DataError("Memorisation needs at least 3 training pictures; give more pictures.")
    found = _nearest_beyond(train, 0.0)
    return _nearest_beyond(train, _TWIN * found.median().item())


def neighbours(train: torch.Tensor, pictures: torch.Tensor, reach: torch.Tensor | None = None) -> Neighbours:
    """Where `pictures` [M, D] or [M, 2, D] stand among `train`, [T, ...] alike; `reach` is `nearest_other(train)`."""
    reach = nearest_other(train) if reach is None else reach
    nearest, index = _gaps(train, pictures).min(0)
    return Neighbours(index, nearest, reach[index])


def nearer_to_train(
    train: torch.Tensor, held_out: torch.Tensor, pictures: torch.Tensor, seed: int = 0, num_draws: int = 10
) -> float:
    """Share in percent of pictures [M, D] or [M, 2, D] nearer to training than to as many held-out ones: 50 is fair.

    Above 50 the model knows what it was shown better than what it was not shown; the mean over random draws.
    """
    rng = np.random.RandomState(seed)
    size = min(len(train), len(held_out))
    to_train, to_held = _gaps(train, pictures), _gaps(held_out, pictures)  # [T, M], [H, M]
    shares = []
    for _ in range(num_draws):
        a, b = (torch.from_numpy(rng.permutation(len(x))[:size]) for x in (to_train, to_held))
        nearest_train, nearest_held = to_train[a].min(0).values, to_held[b].min(0).values
        closer, equal = nearest_train < nearest_held, nearest_train == nearest_held
        shares.append((closer.double() + 0.5 * equal.double()).mean().item())
    return 100 * float(np.mean(shares))


@dataclass(frozen=True, eq=False)
class Pairs:
    """Fakes beside their nearest training pictures, most copied first.

    fakes and nearest uint8 [P, R, R, C]; indices of the fakes among those judged, names of the training files, ratios
    as in `Neighbours`.
    """

    fakes: np.ndarray
    nearest: np.ndarray
    indices: tuple[int, ...]
    names: tuple[str, ...]
    ratios: tuple[float, ...]

    def picture(self, columns: int = 4) -> np.ndarray:
        """One sheet uint8 [H, W, C], fake and training picture side by side, `columns` pairs a row."""
        both = np.concatenate([self.fakes, self.nearest], axis=2)  # [P, R, 2R, C]
        both = np.pad(both, ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=255)
        return grid(both, min(columns, len(both)))


def _gaps(train: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
    """Distance of every training picture to every other, whichever way round that one is nearer, [T, M]."""
    if train.ndim == 2:
        return distances(train, pictures)
    return torch.minimum(*(distances(train[:, 0], way) for way in pictures.unbind(1)))


def _nearest_beyond(train: torch.Tensor, least: float) -> torch.Tensor:
    """Distance of each training picture to the nearest other that is farther than `least`, [T], in blocks."""
    found = []
    for start in range(0, len(train), _BLOCK):
        to_all = _gaps(train, train[start : start + _BLOCK]).T  # [b, T]
        rows = torch.arange(len(to_all))
        to_all[rows, start + rows] = torch.inf
        found.append(to_all.masked_fill(to_all < least, torch.inf).min(1).values)
    return torch.cat(found)
