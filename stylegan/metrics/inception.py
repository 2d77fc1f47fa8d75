"""Inception v3 from a plain state dict: 2048 pooled features of a picture at 299 px (arXiv 1512.00567).

Two families of files share its names: the 2015 network that FID is defined with (1008 classes; its averages leave the
border out, its last block takes a maximum) and torchvision's (1000 classes). x [N, C, H, W].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from stylegan.errors import CheckpointError
from stylegan.metrics.features import to_rgb, to_side

SIDE = 299
_EPSILON = 1e-3
_BATCH = 16
_STEM = (("Conv2d_1a_3x3", 2, 0), ("Conv2d_2a_3x3", 1, 0), ("Conv2d_2b_3x3", 1, 1), ("pool", 2, 0),
         ("Conv2d_3b_1x1", 1, 0), ("Conv2d_4a_3x3", 1, 0), ("pool", 2, 0))  # fmt: skip
_LAST = "Mixed_7c.branch_pool"


class Inception:
    """The network as a function of pictures; weights are folded with their batch normalisation."""

    def __init__(self, state: dict[str, torch.Tensor], fingerprint: str) -> None:
        try:
            classes = state["fc.weight"].shape[0]
            names = [name[: -len(".conv.weight")] for name in state if name.endswith(".conv.weight")]
            self._layers = {name: _folded(state, name) for name in names if not name.startswith("AuxLogits")}
        except (KeyError, RuntimeError, AttributeError) as error:
            raise CheckpointError("The file is no whole Inception v3; use a state dict of all its layers.") from error
        self._is_2015 = classes == 1008
        self.name = f"inception-{'2015' if self._is_2015 else 'torchvision'}-{fingerprint}"
        self._try_out()

    @torch.no_grad()
    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Image [N, C, H, W] in [-1, 1] -> features float32 [N, 2048] on the CPU."""
        return torch.cat([self._features(to_rgb(part.float().cpu())) for part in image.split(_BATCH)])

    def _try_out(self) -> None:
        """One small picture through all layers, so that a file with wrong shapes is refused when it is opened."""
        try:
            shape = self._layers_of(torch.zeros(1, 3, 75, 75)).shape
        except (KeyError, RuntimeError) as error:
            raise CheckpointError("The file's layers do not fit together as an Inception v3; use another.") from error
        if shape != (1, 2048):
            raise CheckpointError(f"This Inception gives {shape[-1]} features instead of 2048; use the published one.")

    def _features(self, image: torch.Tensor) -> torch.Tensor:
        """Pictures [n, 3, H, W], resized to 299 px (antialiased when made smaller) -> [n, 2048]."""
        return self._layers_of(to_side(image, SIDE))

    def _layers_of(self, x: torch.Tensor) -> torch.Tensor:
        """All layers; the names are those of the published state dicts."""
        for name, stride, padding in _STEM:
            x = F.max_pool2d(x, 3, stride) if name == "pool" else self._conv(name, x, stride, padding)
        for letter in "bcd":
            x = self._block_a(f"Mixed_5{letter}", x)
        x = self._reduce_b("Mixed_6a", x)
        for letter in "bcde":
            x = self._block_c(f"Mixed_6{letter}", x)
        x = self._reduce_d("Mixed_7a", x)
        for letter in "bc":
            x = self._block_e(f"Mixed_7{letter}", x)
        return x.mean((2, 3))

    def _conv(self, name: str, x: torch.Tensor, stride: int = 1, padding: int | None = None) -> torch.Tensor:
        """Convolution, folded normalisation and ReLU; padding None keeps the size."""
        weight, bias = self._layers[name]
        around = (weight.shape[2] // 2, weight.shape[3] // 2) if padding is None else padding
        return F.relu(F.conv2d(x, weight, bias, stride, around))

    def _chain(self, block: str, x: torch.Tensor, *names: str) -> torch.Tensor:
        """Several convolutions in a row."""
        for name in names:
            x = self._conv(f"{block}.{name}", x)
        return x

    def _pool(self, block: str, x: torch.Tensor) -> torch.Tensor:
        """The pooled branch of a block that keeps the size."""
        if self._is_2015 and f"{block}.branch_pool" == _LAST:
            pooled = F.max_pool2d(x, 3, 1, 1)
        else:
            pooled = F.avg_pool2d(x, 3, 1, 1, count_include_pad=not self._is_2015)
        return self._conv(f"{block}.branch_pool", pooled)

    def _block_a(self, block: str, x: torch.Tensor) -> torch.Tensor:
        """Figure 5 of the paper, with one 5 x 5 branch."""
        five = self._chain(block, x, "branch5x5_1", "branch5x5_2")
        double = self._chain(block, x, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
        return torch.cat([self._chain(block, x, "branch1x1"), five, double, self._pool(block, x)], dim=1)

    def _reduce_b(self, block: str, x: torch.Tensor) -> torch.Tensor:
        """Figure 10: halves the size."""
        double = self._chain(block, x, "branch3x3dbl_1", "branch3x3dbl_2")
        double = self._conv(f"{block}.branch3x3dbl_3", double, 2, 0)
        return torch.cat([self._conv(f"{block}.branch3x3", x, 2, 0), double, F.max_pool2d(x, 3, 2)], dim=1)

    def _block_c(self, block: str, x: torch.Tensor) -> torch.Tensor:
        """Figure 6, n = 7."""
        seven = self._chain(block, x, "branch7x7_1", "branch7x7_2", "branch7x7_3")
        double = self._chain(block, x, *(f"branch7x7dbl_{i}" for i in range(1, 6)))
        return torch.cat([self._chain(block, x, "branch1x1"), seven, double, self._pool(block, x)], dim=1)

    def _reduce_d(self, block: str, x: torch.Tensor) -> torch.Tensor:
        """Halves the size again."""
        three = self._conv(f"{block}.branch3x3_2", self._chain(block, x, "branch3x3_1"), 2, 0)
        seven = self._chain(block, x, "branch7x7x3_1", "branch7x7x3_2", "branch7x7x3_3")
        seven = self._conv(f"{block}.branch7x7x3_4", seven, 2, 0)
        return torch.cat([three, seven, F.max_pool2d(x, 3, 2)], dim=1)

    def _block_e(self, block: str, x: torch.Tensor) -> torch.Tensor:
        """Figure 7: branches that fork."""
        three = self._chain(block, x, "branch3x3_1")
        double = self._chain(block, x, "branch3x3dbl_1", "branch3x3dbl_2")
        forks = [self._chain(block, three, f"branch3x3_2{side}") for side in "ab"]
        forks += [self._chain(block, double, f"branch3x3dbl_3{side}") for side in "ab"]
        return torch.cat([self._chain(block, x, "branch1x1"), *forks, self._pool(block, x)], dim=1)


def _folded(state: dict[str, torch.Tensor], name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of one convolution with its batch normalisation folded in."""
    norm = {part: state[f"{name}.bn.{part}"].float() for part in ("weight", "bias", "running_mean", "running_var")}
    gain = norm["weight"] / (norm["running_var"] + _EPSILON).sqrt()
    return state[f"{name}.conv.weight"].float() * gain[:, None, None, None], norm["bias"] - norm["running_mean"] * gain
