"""StyleGAN3's running magnitudes of what each layer takes in, which training moves and use divides by.

arXiv 2106.12423 appendix D; other families have none, and every method here does nothing for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

HALF_LIFE = 20_000.0  # images


class Magnitudes:
    """Watches the layers of a network that hold a `magnitude_ema`."""

    def __init__(self, network: nn.Module):
        self._layers = [layer for layer in network.modules() if isinstance(getattr(layer, "magnitude_ema", None),
                                                                           torch.Tensor)]  # fmt: skip
        self._seen: list[list[torch.Tensor]] = []

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note the mean square of what each layer takes in during the forward passes inside."""
        self._seen = [[] for _ in self._layers]

        def note(place: int):
            return lambda layer, inputs: self._seen[place].append(inputs[0].x.detach().float().square().mean())

        handles = [layer.register_forward_pre_hook(note(place)) for place, layer in enumerate(self._layers)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def take(self) -> list[torch.Tensor]:
        """The means [] of what was noted, in the order of the layers; the shares of a batch may come in any order."""
        return [torch.stack(values).sort().values.mean() for values in self._seen]

    def move(self, now: list[torch.Tensor], batch: int) -> None:
        """Move every average towards `now` after a batch."""
        beta = 0.5 ** (batch / HALF_LIFE)
        for layer, value in zip(self._layers, now, strict=True):
            layer.magnitude_ema.copy_(value.lerp(layer.magnitude_ema, beta))
