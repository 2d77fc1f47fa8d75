"""The model's own population in W, and the calibration that makes strength 1 one standard deviation of it.

Shapes: N samples, L layers (num_ws), D w_dim, Z z_dim.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from stylegan.errors import DirectionError
from stylegan.latents import Direction
from stylegan.networks.generator import Generator

_BATCH = 1024


@torch.no_grad()
def sample_w(generator: Generator, num: int, seed: int = 0) -> Tensor:
    """Untruncated w of `num` random z, classes drawn evenly when there are any; float32 [N, D] on the CPU."""
    if num < 2:
        raise DirectionError(f"A population needs at least 2 samples, not {num}.")
    random = np.random.RandomState(seed)
    z = random.randn(num, generator.z_dim).astype(np.float32)  # [N, Z]
    labels = random.randint(generator.num_classes, size=num) if generator.num_classes else None  # [N]
    return map_w(generator, z, labels)


@torch.no_grad()
def map_w(generator: Generator, z: np.ndarray, labels: np.ndarray | None = None) -> Tensor:
    """w [N, D] on the CPU for z [N, Z] and class numbers [N], mapped in batches."""
    parts = []
    for start in range(0, len(z), _BATCH):
        part = slice(start, start + _BATCH)
        label = None if labels is None else [int(label) for label in labels[part]]
        latents = generator.map(z[part], label=label)
        parts.append(latents.ws[:, 0].float().cpu())  # [n, D]
    return torch.cat(parts)


def fix_sign(vector: Tensor) -> Tensor:
    """The same axis [D] turned so that its largest entry by magnitude is positive: an eigenvector has no sign."""
    return vector * torch.sign(vector[vector.abs().argmax()])


def calibrated(vector: Tensor, w: Tensor) -> Tensor:
    """The axis [D] scaled to one standard deviation of the population w [N, D] projected on its unit vector."""
    vector = vector.double()
    norm = vector.norm()
    if not torch.isfinite(norm) or norm == 0:
        raise DirectionError("A direction came out as zero or not finite; sample more latents or check the model.")
    unit = vector / norm
    return (unit * (w.double() @ unit).std()).float()


def row_scale(rows: Tensor, w: Tensor) -> float:
    """The factor that calibrates `rows` [L, D], which may differ from layer to layer, on the population w [N, D].

    The root mean square over layers of (standard deviation along row / its length), a layer counting by the fourth
    power of its length; for equal rows it is what `calibrated` does. Raises DirectionError when nothing moves.
    """
    rows = rows.double()
    length = rows.norm()
    if not torch.isfinite(length) or length == 0:
        raise DirectionError("A direction came out as zero or not finite; choose others or sample more latents.")
    rows = rows / length
    spreads = (w.double() @ rows.T).var(0)  # [L], of w on each row, times its length squared
    return float((spreads.sum() / rows.norm(dim=1).pow(4).sum()).sqrt() / length)


def axis_direction(name: str, axis: Tensor, w: Tensor, num_ws: int, kind: str, info: dict,
                   layers: tuple[int, int] | None = None) -> Direction:
    """A Direction along axis [D], the same vector for every layer [L, D], calibrated on the population w [N, D]."""
    vector = calibrated(axis, w).repeat(num_ws, 1)  # [L, D]
    return Direction(name=name, vector=vector, layers=layers or (0, num_ws - 1), kind=kind, model_hash="", info=info)
