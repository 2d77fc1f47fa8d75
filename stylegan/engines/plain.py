"""PyTorch on a processor: always there, the reference for the other engines, and the maker of all that is kept.

Pieces run with their weights laid out for the processor (`laid_out`); what has no layout runs as the network's module.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from stylegan.engines.laid_out import lay_out
from stylegan.networks.pieces import Noise, PiecewiseSynthesis, State

TOLERANCE = 1e-3  # of the modules' picture, in [-1, 1]; 64 to 1024 px differ by less than a tenth of it


class PlainEngine:
    """Runs the pieces of a synthesis network in evaluation; weights that change later are not seen.

    In bfloat16 convolutions are; mapping, styles, demodulation and the sum of colours stay float32.
    """

    def __init__(self, synthesis: PiecewiseSynthesis, dtype: torch.dtype = torch.float32) -> None:
        self.name = f"torch {str(dtype).removeprefix('torch.')}"
        self._pieces, self._dtype = synthesis.pieces(), dtype
        self._laid_out: dict[int, Callable[..., State] | None] = {}

    @torch.no_grad()
    def run(self, index: int, state: State, styles: list[torch.Tensor], noise: Noise) -> State:
        """The state after piece `index`; `styles` are the piece's own, [N, C] each."""
        piece = self._pieces[index]
        if index not in self._laid_out and styles[0].device.type == "cpu":
            self._laid_out[index] = lay_out(piece, self._dtype)
        laid_out = self._laid_out.get(index)
        if laid_out is None:
            return piece(state, styles, noise, self._dtype)
        return laid_out(state, styles, noise)
