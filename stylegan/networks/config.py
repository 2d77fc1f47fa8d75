"""Configs that rebuild a network: frozen, JSON-able, no torch (they travel inside the weights)."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

from stylegan.errors import CheckpointError
from stylegan.networks.stylegan3_layers import LayerSpec, check_layers, design_layers

FAMILIES = ("stylegan1", "stylegan2", "stylegan3")


def _from_dict(cls: type, values: Any) -> Any:
    """Build a config from decoded JSON; unknown keys and wrong types are refused by name."""
    if not isinstance(values, dict):
        raise CheckpointError(f"A {cls.__name__} must be a JSON object. Export the checkpoint again.")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise CheckpointError(f"The config names '{unknown[0][:40]}', unknown to this version. Update the app.")
    plain = {name: _frozen(value) for name, value in values.items()}
    for name, value in plain.items():
        default = fields[name].default
        if isinstance(default, bool) != isinstance(value, bool) and default is not None:
            raise CheckpointError(f"The config's {name} has the wrong type. Export the checkpoint again.")
        if isinstance(default, int) and not isinstance(value, int):
            raise CheckpointError(f"The config's {name} must be a whole number. Export the checkpoint again.")
        if isinstance(default, str) and not isinstance(value, str):
            raise CheckpointError(f"The config's {name} must be text. Export the checkpoint again.")
        if isinstance(default, float) and not (isinstance(value, int | float) and math.isfinite(value)):
            raise CheckpointError(f"The config's {name} must be a number. Export the checkpoint again.")
        if isinstance(default, tuple) and not isinstance(value, tuple):
            raise CheckpointError(f"The config's {name} must be a list. Export the checkpoint again.")
    try:
        return cls(**plain)
    except (TypeError, ValueError) as error:
        raise CheckpointError("The config holds a value of the wrong type. Export the checkpoint again.") from error


def _frozen(value: Any) -> Any:
    """Turn JSON lists into tuples, so that configs stay hashable."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


@dataclass(frozen=True)
class GeneratorConfig:
    """All that rebuilds a generator: family, sizes in pixels and channels, and the choices of its paper.

    `channels` lists the widths of the blocks 4, 8, ... where a file does not follow min(base // resolution, max).
    `layers` describes StyleGAN3's synthesis layer by layer, as read from a file or, when not given, as the paper has
    it; other families have none. `fade` is the share of a StyleGAN1's picture that the block before the last still
    makes, while it grows.
    Raises CheckpointError when the values cannot belong to any network.
    """

    family: str = "stylegan2"
    resolution: int = 64
    img_channels: int = 3
    z_dim: int = 512
    w_dim: int = 512
    num_classes: int = 0
    mapping_layers: int = 2
    mapping_width: int = 0  # 0: as wide as w
    mapping_lr_multiplier: float = 0.01
    w_avg_beta: float = 0.998
    channel_base: int = 16384
    channel_max: int = 512
    channels: tuple[int, ...] = ()
    architecture: str = "skip"
    use_noise: bool = True
    conv_clamp: float = 0.0  # 0: no clamp
    resample_filter: tuple[float, ...] = (1.0, 3.0, 3.0, 1.0)
    layers: tuple[LayerSpec, ...] = ()
    fade: float = 0.0

    def __post_init__(self) -> None:
        """Refuse configs that no network of this family can have, before anything is allocated."""
        if self.family not in FAMILIES:
            known = ", ".join(FAMILIES)
            raise CheckpointError(f"The network family '{self.family[:30]}' is unknown; known are {known}.")
        power = self.resolution >= 4 and self.resolution & (self.resolution - 1) == 0
        if (self.family != "stylegan3" and not power) or not 4 <= self.resolution <= 2048:
            raise CheckpointError(f"A resolution of {self.resolution} is not supported; use a power of two, 8 to 1024.")
        limits = {
            "img_channels": (1, 16), "z_dim": (1, 8192), "w_dim": (1, 8192), "num_classes": (0, 100_000),
            "mapping_layers": (1, 64), "mapping_width": (0, 8192), "channel_base": (1, 1 << 20),
            "channel_max": (1, 8192),
        }  # fmt: skip
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                shown = str(getattr(self, name))[:20]
                raise CheckpointError(f"The config's {name} is {shown}; it must lie in {low} to {high}.")
        if self.architecture not in ("orig", "skip", "resnet"):
            raise CheckpointError(f"The architecture '{self.architecture[:30]}' is unknown; known: orig, skip, resnet.")
        proper = all(type(width) is int and 1 <= width <= 8192 for width in self.channels)
        if self.channels and not (proper and len(self.channels) == len(self.block_resolutions)):
            raise CheckpointError("The config's channels do not fit its resolution. Export the checkpoint again.")
        if not 1 <= len(self.resample_filter) <= 64 or not all(map(math.isfinite, self.resample_filter)):
            raise CheckpointError("The config's resample_filter must have 1 to 64 taps. Export the checkpoint again.")
        if self.fade and not (0 < self.fade <= 1 and self.family == "stylegan1" and self.resolution >= 8):
            raise CheckpointError("Only a StyleGAN1 of 8 pixels or more fades, by 0 to 1. Export the checkpoint again.")
        if self.family == "stylegan3":
            designed = () if self.layers else self._designed_layers()
            layers = check_layers(self.layers or designed, self.resolution, self.img_channels)
            object.__setattr__(self, "layers", layers)
        elif self.layers:
            raise CheckpointError("Only a StyleGAN3 config lists layers. Export the checkpoint again.")

    def _designed_layers(self) -> tuple[LayerSpec, ...]:
        """The layers of config T for this resolution (arXiv 2106.12423 section 3.2)."""
        if self.resolution & (self.resolution - 1):
            raise CheckpointError("A StyleGAN3 of such a resolution must list its layers. Export the checkpoint again.")
        return design_layers(self.resolution, self.img_channels, self.channel_base, self.channel_max)

    @property
    def block_resolutions(self) -> tuple[int, ...]:
        """Resolutions of the blocks, 4 to `resolution`."""
        return tuple(2**i for i in range(2, self.resolution.bit_length()))

    @property
    def num_ws(self) -> int:
        """Rows of W+ (StyleGAN2 appendix B: two a resolution; StyleGAN3: one a layer and one for the input)."""
        return len(self.layers) + 1 if self.family == "stylegan3" else 2 * len(self.block_resolutions)

    def width(self, resolution: int) -> int:
        """Channels of the block at `resolution`."""
        if self.channels:
            return self.channels[self.block_resolutions.index(resolution)]
        return min(self.channel_base // resolution, self.channel_max)

    def to_json(self) -> str:
        """The config as one line of JSON, which only of a growing network speaks of fading."""
        values = dataclasses.asdict(self)
        return json.dumps(values if self.fade else {name: value for name, value in values.items() if name != "fade"})

    @classmethod
    def from_json(cls, text: str) -> GeneratorConfig:
        """Parse `to_json`'s line; CheckpointError when it is not one."""
        try:
            values = json.loads(text)
            return _from_dict(cls, values)
        except (ValueError, OverflowError, RecursionError) as error:
            raise CheckpointError("The config inside the file is not JSON. Export the checkpoint again.") from error


@dataclass(frozen=True)
class DiscriminatorConfig:
    """All that rebuilds a StyleGAN2 residual discriminator (arXiv 1912.04958 section 3).

    One that `fades` also reads the picture at half its resolution (arXiv 1710.10196 section 2).
    """

    resolution: int = 64
    img_channels: int = 3
    num_classes: int = 0
    channel_base: int = 16384
    channel_max: int = 512
    mbstd_group: int = 4
    conv_clamp: float = 0.0
    fades: bool = False

    def width(self, resolution: int) -> int:
        """Channels of the block at `resolution`."""
        return min(self.channel_base // resolution, self.channel_max)

    @property
    def block_resolutions(self) -> tuple[int, ...]:
        """Resolutions of the blocks, `resolution` down to 8."""
        return tuple(2**i for i in range(self.resolution.bit_length() - 1, 2, -1))
