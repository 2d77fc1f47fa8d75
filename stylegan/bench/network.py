"""The networks that are measured: the published sizes with random weights, and noise, biases and a picture that matter.

Letters: N batch, C channels, R resolution, L rows of W+, D width of w.
"""

from __future__ import annotations

import torch

from stylegan.engines.walk import Engine
from stylegan.networks.config import GeneratorConfig
from stylegan.networks.generator import Generator, build_generator
from stylegan.networks.pieces import Noise, State

SHOWN = {"stylegan1": "StyleGAN1", "stylegan2": "StyleGAN2", "stylegan3": "StyleGAN3-T"}
MINI_BASE = 512  # below 32 px: for tests, not for figures


def published_config(family: str, resolution: int) -> GeneratorConfig:
    """The width that a family was published with at a resolution; tiny below 32 px."""
    base = 16384 if family == "stylegan1" or resolution < 128 else 32768
    if resolution < 32:
        return GeneratorConfig(family, resolution, z_dim=32, w_dim=32, channel_base=MINI_BASE, channel_max=32)
    return GeneratorConfig(family, resolution, channel_base=base)


def random_network(config: GeneratorConfig, seed: int = 0) -> tuple[Generator, torch.Tensor]:
    """A generator in use with random weights, and a ws [1, L, D]; its pictures have a deviation of 0.5 or so."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = build_generator(config).eval().requires_grad_(False)
        ws = generator.map(torch.randn(1, config.z_dim)).ws
        tensors = generator.synthesis.state_dict()
        for name, tensor in tensors.items():
            if name.endswith((".noise_weight", ".noise_strength")) or (name.endswith(".bias") and "affine" not in name):
                tensor.copy_(0.1 * torch.randn(tensor.shape))
    factor = 0.5 / float(generator.synthesize(ws).std())
    colours = f"{config.layers[-1].name}." if config.layers else "torgb."
    for name, tensor in tensors.items():  # a picture is linear in what turns features to colours
        if colours in name and "affine" not in name and name.endswith((".weight", ".bias")):
            tensor.mul_(factor)
    return generator, ws


class Walk:
    """One engine on one ws: the whole picture, the picture so far after a piece, and what follows a kept state."""

    def __init__(self, engine: Engine, generator: Generator, ws: torch.Tensor) -> None:
        self.engine, self.noise = engine, Noise()
        self.pieces = generator.synthesis.pieces()
        with torch.no_grad():
            self.styles = generator.synthesis.styles(ws)

    def run(self, first: int = 0, state: State | None = None, last: int | None = None) -> State:
        """The state after piece `last` (the last one when not given), from the state before piece `first`."""
        state = State() if state is None else state
        for index in range(first, len(self.pieces) if last is None else last + 1):
            state = self.engine.run(index, state, self.styles[self.pieces[index].styles], self.noise)
        return state
