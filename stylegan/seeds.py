"""Seeds: the latent z that everyone gets for a seed, the plane that seeds are laid out on, and lists like `1,2,5-10`.

N seeds, Z numbers per latent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from stylegan.errors import RequestError

MAX_SEED = 2**32 - 1
MAX_SEEDS = 100_000
PLANE_WIDTH = 100


def z_of(seed: int, z_dim: int) -> np.ndarray:
    """The float32 latent [1, Z] of a seed in 0..2**32-1, the same numbers as in NVIDIA's tools."""
    if not 0 <= seed <= MAX_SEED:
        raise RequestError(f"A seed must be between 0 and {MAX_SEED}, not {seed}.")
    return np.random.RandomState(seed).randn(1, z_dim).astype(np.float32)  # [1, Z]


def z_of_seeds(seeds: Iterable[int], z_dim: int) -> np.ndarray:
    """The latents [N, Z] of several seeds, each as if alone."""
    rows = [z_of(seed, z_dim) for seed in seeds]
    return np.concatenate(rows) if rows else np.zeros([0, z_dim], np.float32)  # [N, Z]


def parse_seeds(text: str) -> list[int]:
    """Read a list of seeds and ranges, like `1,2,5-10`; at most 100,000 seeds, in the order given."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,10})\s*(?:-\s*(\d{1,10})\s*)?", part)
        if not match:
            raise RequestError(f"{text[:60]!r} is not a list of seeds; write it like 1,2,5-10.")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last > MAX_SEED:
            raise RequestError(f"{part.strip()} is not a range of seeds between 0 and {MAX_SEED}, lowest first.")
        if len(seeds) + last - first + 1 > MAX_SEEDS:
            raise RequestError(f"{text[:60]!r} names more than {MAX_SEEDS} seeds; ask for fewer at a time.")
        seeds.extend(range(first, last + 1))
    return seeds


def plane_seeds(seed: int, dx: float = 0.0, dy: float = 0.0) -> list[tuple[int, float]]:
    """The 1 to 4 seeds around a point of the seed plane and their bilinear weights, which add up to 1."""
    corners = []
    for down, weight_y in ((0, 1.0 - dy), (1, dy)):
        for right, weight_x in ((0, 1.0 - dx), (1, dx)):
            if weight_x * weight_y > 0:
                corners.append(((seed + right + PLANE_WIDTH * down) % 2**32, weight_x * weight_y))
    return corners
