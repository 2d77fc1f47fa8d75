"""What the synthesis networks of all families share: pieces that run one after another on a State, and their noise.

w goes through one affine map a layer to S space (arXiv 2011.12799 section 2), and S space styles the pieces. Whoever
keeps the State before a piece can start there.

Letters: N batch, C channels, R resolution, D width of w, L rows of W+.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from stylegan.networks.layers import dtype_at


class State(NamedTuple):
    """What goes from piece to piece: features x [N, C, H, W], and the picture so far [N, img, R, R] where there is one.

    Before the first piece x is None, or for StyleGAN3 the user's transform [3, 3].
    """

    x: torch.Tensor | None = None
    image: torch.Tensor | None = None


@dataclass(frozen=True)
class LayerInfo:
    """What a row of W+ styles: the layer's name, its resolution in pixels, its channels, the row."""

    name: str
    resolution: int
    channels: int
    ws_index: int


@dataclass
class Noise:
    """Where a forward pass takes its noise from: 'const', 'none' or 'random' (drawn from `source`), and how strong."""

    mode: str = "const"
    strength: float = 1.0
    source: torch.Generator | None = None

    def of(self, layer: nn.Module, batch: int) -> torch.Tensor | None:
        """The layer's noise at its strength, [R, R], [N, 1, R, R] or with channels of their own, or None."""
        field = self.field(layer, batch)
        return None if field is None else field * (layer.noise_strength * self.strength)

    def field(self, layer: nn.Module, batch: int) -> torch.Tensor | None:
        """The layer's noise before its strength, [R, R] or [N, 1, R, R]; random noise is drawn layer after layer."""
        if self.mode == "none" or not self.strength or not layer.use_noise:
            return None
        if self.mode == "const":
            return layer.noise_const
        shape = [batch, 1, *layer.noise_const.shape]
        device = layer.noise_const.device
        noise = torch.randn(shape, generator=self.source, device=self.source.device if self.source else device)
        return noise.to(device)


class Piece(nn.Module):
    """A part of a synthesis network: `forward(state, styles, noise, dtype) -> State`.

    `name`; `resolution` of its result in pixels, margins left out; `styles`, which affine maps of the network style
    it; `has_image` when its result holds a picture.
    """

    name: str
    resolution: int
    styles: slice
    has_image: bool


class PiecewiseSynthesis(nn.Module):
    """ws [N, L, D] -> image [N, C, R, R], piece by piece; families say what the `pieces` and their `affines` are."""

    def pieces(self) -> list[Piece]:
        """The pieces in the order in which they run."""
        raise NotImplementedError

    def affines(self) -> list[tuple[int, nn.Module]]:
        """(row of W+, map from w to styles) of every layer, in the order in which the pieces use them."""
        raise NotImplementedError

    def styles(self, ws: torch.Tensor, offsets: Mapping[int, torch.Tensor] | None = None) -> list[torch.Tensor]:
        """S space of ws [N, L, D]: [N, C_i] for each affine map, moved by `offsets` [N or 1, C_i] by its number."""
        ws, offsets = ws.float(), offsets or {}
        styles = [affine(ws[:, row]) for row, affine in self.affines()]
        return [style + offsets[i].to(style) if i in offsets else style for i, style in enumerate(styles)]

    def forward(
        self,
        ws: torch.Tensor,
        noise: Noise | None = None,
        dtype: torch.dtype = torch.float32,
        offsets: Mapping[int, torch.Tensor] | None = None,
        transform: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Synthesise float32 images [N, C, R, R], not clamped; pieces of 8 pixels and more compute in `dtype`.

        `transform` [3, 3] as `transform_matrix` gives it, StyleGAN3 only, which in turn has no noise.
        """
        noise, styles, state = noise or Noise(), self.styles(ws, offsets), State(transform)
        pieces = self.pieces()
        for piece in pieces:
            kind = dtype_at(dtype, piece.resolution, pieces[-1].resolution)
            state = piece(state, styles[piece.styles], noise, kind)
        return state.image
