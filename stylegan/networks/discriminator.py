"""StyleGAN2's residual discriminator with minibatch deviation and projection conditioning.

arXiv 1912.04958 section 3 (figure 7, residual), 1710.10196 sections 2 (growing) and 3 (minibatch standard deviation),
1802.05637 (projection), 2006.06676 (class embedding).

Letters: N batch, C channels, R resolution, K classes, G group, M groups.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from stylegan.networks.config import DiscriminatorConfig
from stylegan.networks.layers import Conv, FullyConnected, dtype_at
from stylegan.networks.mapping import Mapping


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a 1x1 branch, halving the resolution; `fromrgb` where it may read the picture."""

    def __init__(self, inputs: int, outputs: int, config: DiscriminatorConfig, reads_image: bool):
        super().__init__()
        clamp = config.conv_clamp
        if reads_image:
            self.fromrgb = Conv(config.img_channels, inputs, 1, clamp=clamp)
        self.conv0 = Conv(inputs, inputs, 3, clamp=clamp)
        self.conv1 = Conv(inputs, outputs, 3, down=2, clamp=clamp)
        self.skip = Conv(inputs, outputs, 1, activation="linear", bias=False, down=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [N, C, R, R] -> [N, C', R / 2, R / 2]."""
        gain = math.sqrt(0.5)
        return self.skip(x, gain) + self.conv1(self.conv0(x), gain)


def minibatch_deviation(x: torch.Tensor, group: int) -> torch.Tensor:
    """Append one channel with the mean standard deviation over groups strided through the batch; x [N, C, R, R]."""
    num = len(x)
    group = next(size for size in range(min(group, num), 0, -1) if num % size == 0)
    y = x.float().reshape(group, num // group, *x.shape[1:])  # [G, M, C, R, R]
    deviation = (y.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))  # [M]
    plane = deviation.repeat(group).reshape(num, 1, 1, 1).expand(-1, 1, *x.shape[2:])
    return torch.cat([x, plane.to(x.dtype)], dim=1)


class Epilogue(nn.Module):
    """Minibatch deviation, convolution and two linear layers at 4 pixels; always float32."""

    def __init__(self, channels: int, outputs: int, config: DiscriminatorConfig):
        super().__init__()
        self.mbstd_group = config.mbstd_group
        self.conv = Conv(channels + 1, channels, 3, clamp=config.conv_clamp)
        self.fc = FullyConnected(channels * 16, channels, "lrelu")
        self.out = FullyConnected(channels, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [N, C, 4, 4] -> [N, outputs]."""
        x = self.conv(minibatch_deviation(x.float(), self.mbstd_group))
        return self.out(self.fc(x.flatten(1)))


class Discriminator(nn.Module):
    """image [N, C, R, R] (and label [N, K]) -> logits [N, 1]; positive means real.

    `fade` is the share with which one that fades still reads the picture at half its resolution.
    """

    def __init__(self, config: DiscriminatorConfig):
        super().__init__()
        self.config, self.fade = config, 1.0 if config.fades else 0.0
        readers = (config.resolution, config.resolution // 2 if config.fades else 0)
        for resolution in config.block_resolutions:
            block = ResidualBlock(
                config.width(resolution),
                config.width(resolution // 2),
                config,
                reads_image=resolution in readers,
            )
            self.add_module(f"b{resolution}", block)
        width = config.width(4)
        if config.num_classes:
            self.mapping = Mapping(0, width, config.num_classes, w_avg_beta=None)
        self.b4 = Epilogue(width, width if config.num_classes else 1, config)

    def forward(
        self, image: torch.Tensor, label: torch.Tensor | None = None, dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        """Logits float32 [N, 1]; blocks above 4 pixels compute in `dtype`."""
        image, (largest, *others) = image.to(dtype), self.config.block_resolutions
        first = getattr(self, f"b{largest}")
        x = first(first.fromrgb(image))
        if self.fade:
            x = x.lerp(getattr(self, f"b{others[0]}").fromrgb(F.avg_pool2d(image, 2)), self.fade)
        for resolution in others:
            x = getattr(self, f"b{resolution}")(x.to(dtype_at(dtype, resolution, largest)))
        x = self.b4(x)  # [N, 1] or [N, C]
        if not self.config.num_classes:
            return x
        features = self.mapping(None, label)  # [N, C]
        return (x * features).sum(dim=1, keepdim=True) / math.sqrt(features.shape[1])
