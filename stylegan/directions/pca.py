"""Principal components of W as directions (GANSpace, arXiv 2004.02546 §3)."""

from __future__ import annotations

import torch

from stylegan.directions.population import axis_direction, fix_sign, sample_w
from stylegan.errors import DirectionError
from stylegan.latents import Direction
from stylegan.networks.generator import Generator


@torch.no_grad()
def find_pca(generator: Generator, num: int = 16, samples: int = 10_000, seed: int = 0) -> list[Direction]:
    """The `num` strongest principal components of sampled w, strongest first (arXiv 2004.02546 §3.1).

    Strength 1 is one standard deviation of the population along the component. Raises DirectionError when more
    components are asked for than W has dimensions.
    """
    if not 1 <= num <= generator.w_dim:
        raise DirectionError(f"This model's W has {generator.w_dim} dimensions; ask for 1 to that many.")
    w = sample_w(generator, samples, seed).double()
    centred = w - w.mean(0)  # [N, D]
    variances, axes = torch.linalg.eigh(centred.T @ centred / (len(w) - 1))  # ascending [D], columns [D, D]
    variances, axes = variances.flip(0).clamp(min=0), axes.flip(1)
    share = variances / variances.sum().clamp(min=1e-30)
    if variances[num - 1] <= 1e-12 * variances[0]:
        raise DirectionError(f"This model's W has fewer than {num} directions with any spread; ask for fewer.")
    return [
        axis_direction(
            f"pca{i + 1}", fix_sign(axes[:, i]), w, generator.num_ws, "pca",
            {"method": "PCA of W, arXiv 2004.02546", "share": round(float(share[i]), 5), "samples": samples,
             "seed": seed},
        )
        for i in range(num)
    ]
