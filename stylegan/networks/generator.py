"""One face for every family: z -> Latents -> image.

Letters: N batch, Z width of z, K classes, L rows of W+, D width of w, C image channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

from stylegan.errors import RequestError
from stylegan.networks import stylegan1, stylegan2, stylegan3
from stylegan.networks.config import GeneratorConfig
from stylegan.networks.mapping import Mapping as MappingNetwork
from stylegan.networks.pieces import Noise
from stylegan.networks.stylegan3 import transform_matrix

if TYPE_CHECKING:
    import numpy as np

    from stylegan.latents import Latents
    from stylegan.request import Transform

SYNTHESES = {
    "stylegan1": stylegan1.Synthesis,
    "stylegan2": stylegan2.Synthesis,
    "stylegan3": stylegan3.Synthesis,
}  # fmt: skip


class Generator(nn.Module):
    """A generator of any family, rebuilt from its config; `mapping` and `synthesis` carry the published names."""

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        self.config = config
        self.mapping = MappingNetwork(
            config.z_dim,
            config.w_dim,
            config.num_classes,
            config.mapping_layers,
            config.mapping_width,
            config.mapping_lr_multiplier,
            config.w_avg_beta,
        )
        self.synthesis = SYNTHESES[config.family](config)
        self.num_ws, self.z_dim, self.w_dim = config.num_ws, config.z_dim, config.w_dim
        self.num_classes, self.img_channels = config.num_classes, config.img_channels
        self.resolution = config.resolution

    @property
    def w_avg(self) -> torch.Tensor:
        """The centre of W, [D], about which truncation pulls (arXiv 1812.04948 appendix B)."""
        return self.mapping.w_avg

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.w_avg.device

    def label(self, label: int | list[int] | torch.Tensor | None, num: int) -> torch.Tensor | None:
        """Class numbers, or weights [N, K], as weights [N, K]; None for a network without classes.

        Raises RequestError for a class that the network does not have, and for a missing one.
        """
        if not self.num_classes:
            if label is not None and not (isinstance(label, torch.Tensor) and label.numel() == 0):
                raise RequestError("This model has no classes; leave the class out.")
            return None
        if label is None:
            raise RequestError(f"This model is conditional; choose a class from 0 to {self.num_classes - 1}.")
        label = torch.as_tensor(label, device=self.device)
        if label.ndim == 2:
            if label.shape != (num, self.num_classes):
                shapes = f"[{num}, {self.num_classes}], not {list(label.shape)}"
                raise RequestError(f"The label must have the shape {shapes}.")
            return label.float()
        label = label.long().reshape(-1).expand(num) if label.numel() == 1 else label.long()
        if label.shape != (num,) or int(label.min()) < 0 or int(label.max()) >= self.num_classes:
            raise RequestError(f"The class must be one number from 0 to {self.num_classes - 1} for each latent.")
        return nn.functional.one_hot(label, self.num_classes).float()  # [N, K]

    @torch.no_grad()
    def map(self, z: torch.Tensor | np.ndarray, label: int | list[int] | torch.Tensor | None = None) -> Latents:
        """z [N, Z] (and class numbers or weights [N, K]) -> Latents with ws [N, L, D], not truncated."""
        from stylegan.latents import Latents

        z = torch.as_tensor(z, dtype=torch.float32, device=self.device)
        if z.ndim != 2 or z.shape[1] != self.z_dim:
            raise RequestError(f"z must have the shape [N, {self.z_dim}], not {list(z.shape)}.")
        return Latents.from_w(self.mapping(z, self.label(label, len(z))), self.num_ws)

    @torch.no_grad()
    def synthesize(
        self,
        latents: Latents | torch.Tensor,
        noise: str = "const",
        noise_seed: int = 0,
        noise_strength: float = 1.0,
        transform: Transform | torch.Tensor | np.ndarray | None = None,
    ) -> torch.Tensor:
        """Latents (or ws [N, L, D]) -> image float32 [N, C, H, W], about [-1, 1], not clamped.

        noise: 'const' (the network's own), 'none', or 'random' drawn from `noise_seed`; `noise_strength` scales it;
        StyleGAN3 has none. transform: StyleGAN3 only, a Transform or the inverse matrix [3, 3] (`transform_matrix`).
        Raises RequestError when ws or transform do not fit this network or the noise is unknown.
        """
        ws = torch.as_tensor(getattr(latents, "ws", latents), dtype=torch.float32, device=self.device)
        offsets = self.check_offsets(getattr(latents, "offsets", {}), len(ws))
        if ws.ndim != 3 or ws.shape[1:] != (self.num_ws, self.w_dim):
            raise RequestError(f"W+ must have the shape [N, {self.num_ws}, {self.w_dim}], not {list(ws.shape)}.")
        if noise not in ("const", "none", "random"):
            raise RequestError(f"The noise '{str(noise)[:20]}' is unknown; choose const, none or random.")
        if transform is not None and self.config.family != "stylegan3":
            raise RequestError("Shift, turn and scale need a StyleGAN3 model; leave the transform out.")
        source = torch.Generator(self.device).manual_seed(noise_seed) if noise == "random" else None
        matrix = None if transform is None else transform_matrix(transform)
        return self.synthesis(ws, Noise(noise, noise_strength, source), offsets=offsets, transform=matrix)

    def check_offsets(self, offsets: Mapping[int, torch.Tensor], num: int) -> Mapping[int, torch.Tensor]:
        """The shifts in S space of `num` latents as they are; RequestError when they do not fit the affine maps."""
        affines = self.synthesis.affines() if offsets else []
        for index, offset in offsets.items():
            if not 0 <= index < len(affines):
                raise RequestError(f"Style {index} does not exist; this model has the styles 0 to {len(affines) - 1}.")
            width = len(affines[index][1].bias)
            if offset.ndim != 2 or offset.shape[1] != width or len(offset) not in (1, num):
                raise RequestError(f"Style {index} has {width} channels; {list(offset.shape)} does not fit.")
        return offsets

    def style_weights(self) -> list[tuple[int, torch.Tensor]]:
        """(row of W+, weight [C, D]) of every layer's affine map from w to styles, as used by SeFa."""
        return [(row, affine.weight.detach() * affine.weight_gain) for row, affine in self.synthesis.affines()]


def build_generator(config: GeneratorConfig) -> Generator:
    """A freshly initialised generator of the config's family."""
    return Generator(config)
