"""Directions in closed form from the style weights (SeFa, arXiv 2007.06600 §3)."""

from __future__ import annotations

import torch

from stylegan.directions.population import axis_direction, fix_sign, sample_w
from stylegan.errors import DirectionError
from stylegan.latents import Direction
from stylegan.networks.generator import Generator


@torch.no_grad()
def find_sefa(generator: Generator, num: int = 16, layers: tuple[int, int] | None = None, samples: int = 4_000,
              seed: int = 0) -> list[Direction]:
    """The `num` unit n that maximise |A n|, A the style weights of `layers` (first, last) stacked (eq. 7 to 9).

    The eigenvectors of A^T A need no sampling; `samples` and `seed` serve only the calibration, which makes
    strength 1 one standard deviation of w projected on n. Raises DirectionError on a layer range the model lacks.
    """
    last = generator.num_ws - 1
    first, final = layers or (0, last)
    if not 0 <= first <= final <= last:
        raise DirectionError(f"Layers {first}-{final} do not exist in this model; it has 0-{last}.")
    if not 1 <= num <= generator.w_dim:
        raise DirectionError(f"This model's W has {generator.w_dim} dimensions; ask for 1 to that many.")
    chosen = [weight.detach().double().cpu() for index, weight in generator.style_weights() if first <= index <= final]
    if not chosen:
        raise DirectionError(f"No style weights act on layers {first}-{final} of this model.")
    stacked = torch.cat(chosen)  # [sum C, D]
    values, axes = torch.linalg.eigh(stacked.T @ stacked)  # ascending [D], columns [D, D]
    values, axes = values.flip(0).clamp(min=0), axes.flip(1)
    share = values / values.sum().clamp(min=1e-30)
    w = sample_w(generator, samples, seed).double()
    stem = "sefa" if layers is None else f"sefa-layers{first}-{final}-"
    return [
        axis_direction(
            f"{stem}{i + 1}", fix_sign(axes[:, i]), w, generator.num_ws, "sefa",
            {"method": "closed-form factorisation, arXiv 2007.06600", "share": round(float(share[i]), 5)},
            (first, final),
        )
        for i in range(num)
    ]
