"""Adaptive discriminator augmentation: geometry and colour, composed into one warp and one matrix a picture.

arXiv 2006.06676 section 2, appendix B: its eighteen transforms, each applied with probability p; the twelve of the
blit, geometry and colour groups unless told otherwise, filter and corruption as passes of their own (`filters`).
The paper resamples with a supersampling wavelet filter; here one bicubic lookup with reflection does it, which is far
cheaper on a CPU and slightly softer. `Controller` moves p so that r_t stays at its target (section 3.2).

Letters: N batch, C channels, H height, W width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from stylegan.training.filters import cut_out, draw_band_gains, filter_bands


class _Warp(torch.autograd.Function):
    """Bicubic lookup at a fixed grid; its gradient is linear too, so R1 can be taken through it."""

    @staticmethod
    def forward(ctx, x, grid):
        ctx.save_for_backward(x, grid)
        return F.grid_sample(x, grid, mode="bicubic", padding_mode="reflection", align_corners=False)

    @staticmethod
    def backward(ctx, grad):
        x, grid = ctx.saved_tensors
        return _Unwarp.apply(grad, x.detach(), grid), None


class _Unwarp(torch.autograd.Function):
    """The transpose of `_Warp`."""

    @staticmethod
    def forward(ctx, grad, x, grid):
        ctx.save_for_backward(grid)
        bicubic, reflection = 2, 2
        return torch.ops.aten.grid_sampler_2d_backward(grad, x, grid, bicubic, reflection, False, [True, False])[0]

    @staticmethod
    def backward(ctx, grad2):
        (grid,) = ctx.saved_tensors
        return _Warp.apply(grad2, grid), None, None


class Augment:
    """Draws transforms with probability `p` and applies them; one call a batch, fakes and reals alike.

    `transforms` names the groups by letter: blit, geometry, colour, filter, noise, cutout.
    """

    def __init__(self, p: float = 0.0, transforms: str = "bgc"):
        self.p, self.transforms = p, transforms

    def __call__(
        self, images: torch.Tensor, source: torch.Generator, total: int = 0, rows: slice = slice(None)
    ) -> torch.Tensor:
        """images [N, C, H, W] -> the same shape; nothing is done, and nothing drawn, at p = 0.

        Numbers are drawn for a batch of `total` pictures of which these are the `rows`, so that a batch in parts is
        transformed as the whole would be.
        """
        if self.p <= 0:
            return images
        total, device = total or len(images), images.device
        if self.transforms:
            warp = self._geometry(total, images.shape[3], images.shape[2], source)[rows].to(device)  # [N, 3, 3]
            grid = F.affine_grid(warp[:, :2], list(images.shape), align_corners=False)
            images = _Warp.apply(images, grid)
        if "bgc" in self.transforms and images.shape[1] in (3, 4):
            images = self._recolour(images, self._colour(total, source)[rows].to(device))
        if "f" in self.transforms:
            images = filter_bands(images, draw_band_gains(total, self.p, source)[rows].to(device))
        return self._corrupt(images, total, rows, source)

    @staticmethod
    def _recolour(images: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
        """Apply colour maps [N, 4, 4] to the first three channels."""
        rgb = images[:, :3].flatten(2)  # [N, 3, H * W]
        rgb = (colour[:, :3, :3] @ rgb + colour[:, :3, 3:]).reshape(len(images), 3, *images.shape[2:])
        return rgb if images.shape[1] == 3 else torch.cat([rgb, images[:, 3:]], dim=1)

    def _corrupt(self, images: torch.Tensor, total: int, rows: slice, source: torch.Generator) -> torch.Tensor:
        """Additive noise and cutout, where they are wanted."""
        device = images.device
        if "n" in self.transforms:
            strength = self._pick(total, torch.randn(total, generator=source).abs() * 0.1, 0.0, source)[rows]
            noise = torch.randn([total, *images.shape[1:]], generator=source)[rows]
            images = images + (noise * strength[:, None, None, None]).to(device)
        if self.transforms.endswith("nc"):
            hit = (torch.rand(total, generator=source) < self.p)[rows]
            centres = torch.rand(total, 2, generator=source)[rows]
            images = cut_out(images, centres.to(device), 0.5, hit.to(device))
        return images

    def _pick(self, num: int, values: torch.Tensor, rest: float, source: torch.Generator, p: float | None = None):
        """`values` [N] where a coin of probability p says so, `rest` elsewhere."""
        hit = torch.rand(num, generator=source) < (self.p if p is None else p)
        return torch.where(hit, values, torch.full_like(values, rest))

    def _geometry(self, num: int, width: int, height: int, source: torch.Generator) -> torch.Tensor:
        """Maps from result to source in [-1, 1] coordinates, [N, 3, 3]: blit and general geometry."""

        def normal() -> torch.Tensor:
            return torch.randn(num, generator=source)

        def uniform(low: float, high: float) -> torch.Tensor:
            return torch.rand(num, generator=source) * (high - low) + low

        flip = self._pick(num, 1 - 2 * torch.randint(0, 2, [num], generator=source).float(), 1.0, source)
        quarter = self._pick(num, torch.randint(0, 4, [num], generator=source).float(), 0.0, source)
        shift_x = self._pick(num, (uniform(-0.125, 0.125) * width).round() / width, 0.0, source)
        shift_y = self._pick(num, (uniform(-0.125, 0.125) * height).round() / height, 0.0, source)
        matrix = _scale(flip, torch.ones(num)) @ _rotation(quarter * (math.pi / 2))
        matrix = matrix @ _translation(2 * shift_x, 2 * shift_y)
        return matrix @ self._general(num, normal, uniform, source) if "g" in self.transforms else matrix

    def _general(self, num: int, normal, uniform, source: torch.Generator) -> torch.Tensor:
        """General geometry: scale, turn, stretch, turn again, shift by parts of a pixel."""
        size = self._pick(num, torch.exp2(normal() * 0.2), 1.0, source)
        stretch = self._pick(num, torch.exp2(normal() * 0.2), 1.0, source)
        p_rotation = 1 - math.sqrt(1 - min(self.p, 1.0))  # two rotations together happen with probability p
        before = self._pick(num, uniform(-math.pi, math.pi), 0.0, source, p_rotation)
        after = self._pick(num, uniform(-math.pi, math.pi), 0.0, source, p_rotation)
        fine_x = self._pick(num, normal() * 0.125, 0.0, source)
        fine_y = self._pick(num, normal() * 0.125, 0.0, source)
        matrix = _scale(1 / size, 1 / size) @ _rotation(before) @ _scale(1 / stretch, stretch)
        return matrix @ _rotation(after) @ _translation(2 * fine_x, 2 * fine_y)

    def _colour(self, num: int, source: torch.Generator) -> torch.Tensor:
        """Colour maps [N, 4, 4]: brightness, contrast, luma flip, hue, saturation."""
        luma = torch.tensor([1.0, 1.0, 1.0, 0.0]) / math.sqrt(3)
        axis = luma.outer(luma)  # [4, 4] projects on the grey axis
        identity = torch.eye(4)
        brightness = self._pick(num, torch.randn(num, generator=source) * 0.2, 0.0, source)
        matrix = identity.repeat(num, 1, 1)
        matrix[:, :3, 3] = brightness[:, None]
        contrast = self._pick(num, torch.exp2(torch.randn(num, generator=source) * 0.5), 1.0, source)
        matrix = torch.diag_embed(torch.stack([contrast] * 3 + [torch.ones(num)], dim=1)) @ matrix
        flip = self._pick(num, torch.randint(0, 2, [num], generator=source).float(), 0.0, source)
        matrix = (identity - 2 * axis * flip[:, None, None]) @ matrix
        hue = self._pick(num, (torch.rand(num, generator=source) * 2 - 1) * math.pi, 0.0, source)
        matrix = _hue(hue) @ matrix
        saturation = self._pick(num, torch.exp2(torch.randn(num, generator=source)), 1.0, source)
        return (axis + (identity - axis) * saturation[:, None, None]) @ matrix


class Controller:
    """Moves p towards r_t = target: r_t = E[sign(D(real))], p changes by at most 1 in `kimg` thousand images."""

    def __init__(self, target: float, kimg: float, cap: float, interval: int = 4):
        self.target, self.kimg, self.cap, self.interval = target, kimg, cap, interval
        self.signs, self.count, self.r_t = 0.0, 0, 0.0

    def observe(self, signs: float, count: float) -> None:
        """Take note of the sum of the signs of `count` logits of augmented reals."""
        self.signs += signs
        self.count += count

    def step(self, p: float, num_steps: int, batch: int) -> float:
        """The new p after step number `num_steps`; between updates the old one."""
        if num_steps % self.interval or not self.count:
            return p
        self.r_t = self.signs / self.count
        self.signs, self.count = 0.0, 0
        change = math.copysign(batch * self.interval / (self.kimg * 1000), self.r_t - self.target)
        return min(max(p + change, 0.0), self.cap)


def _stack(rows: list[list[torch.Tensor]]) -> torch.Tensor:
    """Rows of [N] tensors as matrices [N, rows, columns]."""
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def _scale(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Scaling matrices [N, 3, 3]."""
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return _stack([[x, zero, zero], [zero, y, zero], [zero, zero, one]])


def _translation(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Shift matrices [N, 3, 3]."""
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return _stack([[one, zero, x], [zero, one, y], [zero, zero, one]])


def _rotation(angle: torch.Tensor) -> torch.Tensor:
    """Rotation matrices [N, 3, 3]; angle in radians."""
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return _stack([[cos, -sin, zero], [sin, cos, zero], [zero, zero, one]])


def _hue(angle: torch.Tensor) -> torch.Tensor:
    """Rotations about the grey axis [N, 4, 4] (Rodrigues' formula)."""
    u = 1 / math.sqrt(3)
    cross = torch.tensor([[0.0, -u, u, 0], [u, 0, -u, 0], [-u, u, 0, 0], [0, 0, 0, 0]])
    keep = torch.eye(4)
    sin, cos = angle.sin()[:, None, None], angle.cos()[:, None, None]
    return keep + sin * cross + (1 - cos) * (cross @ cross)
