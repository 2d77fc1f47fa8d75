"""DINOv2 from a plain state dict: the class token of a vision transformer at 224 px (arXiv 2304.07193, 2010.11929).

ViT-S, B and L with 14 px patches, with or without register tokens. x [N, T, D]: T tokens of D features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from stylegan.errors import CheckpointError
from stylegan.metrics.features import to_rgb, to_side

SIDE = 224
_HEAD = 64
_EPSILON = 1e-6
_BATCH = 16
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_LETTERS = {384: "s", 768: "b", 1024: "l"}


class Dinov2:
    """The network as a function of pictures, of any width that is a multiple of 64."""

    def __init__(self, state: dict[str, torch.Tensor], fingerprint: str) -> None:
        self._state = {name: value.float() for name, value in state.items()}
        try:
            self._width, _, self._patch, _ = state["patch_embed.proj.weight"].shape
            places = {int(name.split(".")[1]) for name in state if name.startswith("blocks.")}
        except (KeyError, ValueError, IndexError) as error:
            raise CheckpointError("The file is no whole DINOv2; use a published state dict of one.") from error
        if not 8 <= self._patch <= 32:
            raise CheckpointError(f"This DINOv2 has patches of {self._patch} px; 8 to 32 can be used, 14 is usual.")
        self._num_blocks = len(places)
        self.name = f"dinov2-vit{_LETTERS.get(self._width, self._width)}{self._patch}-{fingerprint}"
        try:
            self._tokens_of(torch.zeros(1, 3, 2 * self._patch, 2 * self._patch))
        except (KeyError, RuntimeError, IndexError, ZeroDivisionError) as error:
            raise CheckpointError(
                "The file's layers do not fit together as a DINOv2 ViT-S, B or L; use one of these."
            ) from error

    @torch.no_grad()
    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Image [N, C, H, W] in [-1, 1] -> features float32 [N, D] on the CPU."""
        return torch.cat([self._features(to_rgb(part.float().cpu())) for part in image.split(_BATCH)])

    def _features(self, image: torch.Tensor) -> torch.Tensor:
        """Pictures [n, 3, H, W], resized to 224 px and normalised as ImageNet is -> [n, D]."""
        mean, deviation = (torch.tensor(values)[:, None, None] for values in (_MEAN, _DEVIATION))
        side = SIDE // self._patch * self._patch
        return self._tokens_of(((to_side(image, side) + 1) / 2 - mean) / deviation)[:, 0]

    def _tokens_of(self, image: torch.Tensor) -> torch.Tensor:
        """All blocks and the last normalisation, [N, T, D]."""
        state = self._state
        patches = F.conv2d(image, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=self._patch)
        places = self._positions(patches.shape[-2:])  # [1, 1 + T, D]
        first = (state["cls_token"] + places[:, :1]).expand(len(image), -1, -1)
        registers = state.get("register_tokens", first[:1, :0]).expand(len(image), -1, -1)
        x = torch.cat([first, registers, patches.flatten(2).mT + places[:, 1:]], dim=1)  # [N, T, D]
        for i in range(self._num_blocks):
            block = f"blocks.{i}."
            x = x + self._attend(block, self._norm(block + "norm1", x)) * state[block + "ls1.gamma"]
            hidden = F.gelu(self._linear(block + "mlp.fc1", self._norm(block + "norm2", x)))
            x = x + self._linear(block + "mlp.fc2", hidden) * state[block + "ls2.gamma"]
        return self._norm("norm", x)

    def _attend(self, block: str, x: torch.Tensor) -> torch.Tensor:
        """Self-attention with heads of 64."""
        num, tokens, width = x.shape
        heads = self._linear(block + "attn.qkv", x).reshape(num, tokens, 3, width // _HEAD, _HEAD)
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # [N, heads, T, 64] each
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self._linear(block + "attn.proj", mixed.transpose(1, 2).reshape(num, tokens, width))

    def _linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """One linear layer."""
        return F.linear(x, self._state[name + ".weight"], self._state[name + ".bias"])

    def _norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """One layer normalisation."""
        return F.layer_norm(x, (x.shape[-1],), self._state[name + ".weight"], self._state[name + ".bias"], _EPSILON)

    def _positions(self, size: tuple[int, int]) -> torch.Tensor:
        """The position embeddings [1, 1 + T, D] resized to a grid of `size` patches, as each kind was trained."""
        known = self._state["pos_embed"]  # [1, 1 + S * S, D]
        side = round((known.shape[1] - 1) ** 0.5)
        if (side, side) == tuple(size):
            return known
        square = known[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        if "register_tokens" in self._state:
            square = F.interpolate(square, size=tuple(size), mode="bicubic", antialias=True)
        else:
            scale = tuple((num + 0.1) / side for num in size)
            square = F.interpolate(square, scale_factor=scale, mode="bicubic")
        return torch.cat([known[:, :1], square.flatten(2).mT], dim=1)
