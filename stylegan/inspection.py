"""A look inside a network: its layers, their feature maps as pictures, statistics and spectrum, and who answers where.

Letters: C channels, H and W grid of a layer, R picture side.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from stylegan.device import full_precision
from stylegan.errors import RequestError
from stylegan.networks.generator import Generator
from stylegan.render import Renderer
from stylegan.request import RenderRequest

MAX_SIDE = 512
NUM_TOP = 8
SPREAD = 99.5  # percentile of a map that becomes white


@dataclass(frozen=True)
class Layer:
    """One layer of a synthesis network: its name, the grid (height, width) of its result, channels and number type."""

    name: str
    height: int
    width: int
    channels: int
    dtype: str


@dataclass(frozen=True, eq=False)
class Features:
    """The result of one layer for one request: `maps` float32 [C, H, W]."""

    layer: Layer
    maps: np.ndarray

    def channel(self, index: int) -> np.ndarray:
        """One channel as grey pixels uint8 [H, W, 1], its strongest half per cent white on both sides of grey."""
        if not 0 <= index < len(self.maps):
            raise RequestError(f"The layer {self.layer.name} has the channels 0 to {len(self.maps) - 1}, not {index}.")
        return _grey(self.maps[index])[..., None]

    def components(self) -> np.ndarray:
        """The first three principal components over the channels as red, green and blue, uint8 [H, W, 3]."""
        flat = self.maps.reshape(len(self.maps), -1).astype(np.float64)  # [C, H * W]
        flat = flat - flat.mean(axis=1, keepdims=True)
        values, vectors = np.linalg.eigh(flat @ flat.T)  # [C], [C, C], rising
        axes = vectors[:, ::-1][:, :3].T  # [3 or fewer, C]
        axes = axes * np.where(axes.sum(axis=1, keepdims=True) < 0, -1.0, 1.0)  # eigenvectors have no sign of their own
        shown = np.zeros([3, flat.shape[1]])
        shown[: len(axes)] = axes @ flat
        return np.stack([_grey(row.reshape(self.maps.shape[1:])) for row in shown], axis=2)

    def spectrum(self) -> np.ndarray:
        """Power over spatial frequency, averaged over channels and angles, in decibels below the largest; float [K].

        Bin k holds the frequencies of k whole waves across the shorter side; the mean of each channel is left out.
        """
        maps = self.maps - self.maps.mean(axis=(1, 2), keepdims=True)
        power = (np.abs(np.fft.fft2(maps)) ** 2).mean(axis=0)  # [H, W]
        height, width = power.shape
        rows, columns = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :]
        bins = np.rint(np.hypot(rows, columns) * min(height, width)).astype(int)  # [H, W]
        count = min(height, width) // 2 + 1
        sums = np.bincount(bins.ravel(), power.ravel(), minlength=count)[:count]
        mean = sums / np.maximum(np.bincount(bins.ravel(), minlength=count)[:count], 1)
        return 10 * np.log10(np.maximum(mean / max(float(mean.max()), 1e-30), 1e-12))

    def statistics(self) -> dict[str, float]:
        """Mean, standard deviation, smallest, largest, share of zeros, and share of channels that do not vary."""
        spread = self.maps.reshape(len(self.maps), -1).std(axis=1)
        return {
            "mean": float(self.maps.mean()), "std": float(self.maps.std()), "min": float(self.maps.min()),
            "max": float(self.maps.max()), "zeros": float((self.maps == 0).mean()),
            "still": float((spread < 1e-6 * max(float(spread.max()), 1e-30)).mean()),
        }  # fmt: skip

    def answers(self, x: float, y: float, num: int = NUM_TOP) -> list[tuple[int, float]]:
        """The channels that answer most at a place (x, y) of the picture, 0 to 1 from the top left: (channel, score).

        The score is how many of its own standard deviations a channel lies away from its mean there.
        """
        if not (0 <= x <= 1 and 0 <= y <= 1):
            raise RequestError("A place of the picture lies between 0 and 1 on both axes.")
        row = min(int(y * self.layer.height), self.layer.height - 1)
        column = min(int(x * self.layer.width), self.layer.width - 1)
        flat = self.maps.reshape(len(self.maps), -1)
        deviation = flat.std(axis=1)
        alive = deviation > 1e-6 * max(float(deviation.max()), 1e-30)
        score = np.where(alive, (self.maps[:, row, column] - flat.mean(axis=1)) / np.where(alive, deviation, 1.0), 0.0)
        return [(int(index), float(score[index])) for index in np.argsort(-np.abs(score), kind="stable")[:num]]


@contextmanager
def captured(generator: Generator, names: set[str] | None = None) -> Iterator[dict[str, torch.Tensor]]:
    """Collect the results [N, C, H, W] of layers, all or the named ones, by name, for passes inside the block."""
    found: dict[str, torch.Tensor] = {}

    def keep(name: str):
        def hook(module: nn.Module, inputs: tuple, output: object) -> None:
            found[name] = (output[0] if isinstance(output, tuple) else output).detach()

        return hook

    hooks = [module.register_forward_hook(keep(name)) for name, module in generator.synthesis.named_modules()
             if hasattr(module, "affine") and (names is None or name in names)]  # fmt: skip
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def list_layers(renderer: Renderer, request: RenderRequest) -> list[Layer]:
    """The layers of a request's model, in the order in which they run."""
    return [_layer(name, maps) for name, maps in _pass(renderer, request, None).items()]


def inspect_layer(renderer: Renderer, request: RenderRequest, name: str) -> Features:
    """What one layer makes of a request, without the margin that StyleGAN3 computes around its picture.

    Raises RequestError when there is no such layer, or its result is not finite.
    """
    found = _pass(renderer, request, {name})
    if name not in found:
        raise RequestError(f"The model has no layer {name[:40]!r}.")
    maps = found[name][0].float().cpu().numpy()  # [C, H, W]
    if not np.isfinite(maps).all():
        raise RequestError(f"The layer {name} gives numbers that are not finite, so there is nothing to show.")
    return Features(_layer(name, found[name]), maps)


def _pass(renderer: Renderer, request: RenderRequest, names: set[str] | None) -> dict[str, torch.Tensor]:
    """One plain pass for a request that collects layers; edits confined to a region act everywhere here."""
    generator, latents = renderer.model(request.model).generator, renderer.latents(request)
    transform = {} if request.transform is None else {"transform": request.transform}
    with renderer.turn(), full_precision(), captured(generator, names) as found:
        generator.synthesize(latents, noise=request.noise, noise_seed=request.noise_seed,
                             noise_strength=request.noise_strength, **transform)
    return {name: _without_margin(generator, name, maps) for name, maps in found.items()}


def _without_margin(generator: Generator, name: str, maps: torch.Tensor) -> torch.Tensor:
    """A layer's result [N, C, H, W] cut to the part that the picture shows."""
    module = generator.synthesis.get_submodule(name)
    inside = getattr(module, "resolution", None)
    margin = 0 if inside is None else (maps.shape[2] - inside) // 2
    return maps[:, :, margin : maps.shape[2] - margin, margin : maps.shape[3] - margin] if margin > 0 else maps


def _layer(name: str, maps: torch.Tensor) -> Layer:
    """What is known of a layer from its result."""
    return Layer(name, maps.shape[2], maps.shape[3], maps.shape[1], str(maps.dtype).removeprefix("torch."))


def _grey(values: np.ndarray) -> np.ndarray:
    """A map [H, W] as uint8 about its median, which is middle grey."""
    values = values - np.median(values)
    scale = max(float(np.percentile(np.abs(values), SPREAD)), 1e-12)
    return np.clip(np.rint(128 + 127 * values / scale), 0, 255).astype(np.uint8)
