"""The mapping network f: Z -> W with class embedding and the moving average of w (arXiv 1812.04948 section 2).

Letters: N batch, Z width of z, D width of w, K classes, L rows of W+.
"""

from __future__ import annotations

import torch
from torch import nn

from stylegan.networks.layers import FullyConnected, normalize_2nd_moment


class Mapping(nn.Module):
    """z [N, Z], label [N, K] -> w [N, D]; keeps `w_avg` [D] while training."""

    def __init__(
        self,
        z_dim: int,
        w_dim: int,
        num_classes: int = 0,
        num_layers: int = 8,
        width: int = 0,
        lr_multiplier: float = 0.01,
        w_avg_beta: float | None = 0.998,
    ):
        super().__init__()
        self.z_dim, self.num_classes, self.num_layers, self.w_avg_beta = z_dim, num_classes, num_layers, w_avg_beta
        if num_classes:
            self.embed = FullyConnected(num_classes, w_dim)
        sizes = [z_dim + (w_dim if num_classes else 0)] + [width or w_dim] * (num_layers - 1) + [w_dim]
        for i in range(num_layers):
            self.add_module(f"fc{i}", FullyConnected(sizes[i], sizes[i + 1], "lrelu", lr_multiplier))
        if w_avg_beta is not None:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: torch.Tensor | None, label: torch.Tensor | None = None, track: bool = False) -> torch.Tensor:
        """Returns w [N, D]; `track` moves w_avg towards this batch's mean (training only)."""
        parts = [] if not self.z_dim else [normalize_2nd_moment(z.float())]
        if self.num_classes:
            parts.append(normalize_2nd_moment(self.embed(label.float())))
        w = torch.cat(parts, dim=1)  # [N, Z + D]
        for i in range(self.num_layers):
            w = getattr(self, f"fc{i}")(w)  # [N, D]
        if track:
            self.w_avg.copy_(w.detach().mean(dim=0).lerp(self.w_avg, self.w_avg_beta))
        return w
