"""How evenly pictures change along a line in W, by the features one has (arXiv 1812.04948, section 4.1).

N pairs, D features.
"""

from __future__ import annotations

import numpy as np
import torch

from stylegan.metrics.features import Extractor
from stylegan.metrics.report import MetricReport
from stylegan.networks.generator import Generator
from stylegan.seeds import z_of_seeds

_STEP = 1e-4
_BATCH = 16
_KEPT = (0.01, 0.99)


def perceptual_path_length(
    generator: Generator, extractor: Extractor, num: int = 1000, seed: int = 0, step: float = _STEP
) -> MetricReport:
    """Mean squared feature change over step^2 at `num` random places between two w's; smoother is lower.

    Named after the features, since the paper's are VGG's: compare only equal names. The extreme percent at both ends is
    left out; classes are drawn evenly.
    """
    rng = np.random.RandomState(seed)
    where = torch.from_numpy(rng.rand(num)).float()
    labels = torch.from_numpy(rng.randint(max(generator.num_classes, 1), size=num))
    found = []
    for start in range(0, num, _BATCH):
        place = torch.arange(start, min(start + _BATCH, num))
        label = labels[place] if generator.num_classes else None
        ends = []
        for side in (0, 1):
            z = z_of_seeds([(seed + 2 * int(i) + side) % 2**32 for i in place], generator.z_dim)
            ends.append(generator.map(z, label).ws)  # [n, L, D]
        t = where[place].to(ends[0].device)[:, None, None]
        a, b = (extractor(generator.synthesize(torch.lerp(*ends, s))).double() for s in (t, t + step))  # [n, D]
        found.append(((a - b) ** 2).mean(1) / step**2)
    values = torch.cat(found)
    low, high = torch.quantile(values, torch.tensor(_KEPT, dtype=values.dtype))
    values = values[(values >= low) & (values <= high)]
    spread = (values.std() / len(values) ** 0.5).item() if len(values) > 1 else 0.0
    details = {"step": step, "space": "W", "seed": seed}
    return MetricReport(f"PPL-{extractor.name}", values.mean().item(), spread, num, extractor.name, details)
