"""Where the time of a picture goes: every operation of the plain engine timed and put into one of four kinds."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

KINDS = ("convolution", "resampling", "elementwise", "rest")
_ELEMENTWISE = {
    "add", "add_", "mul", "mul_", "leaky_relu", "leaky_relu_", "clamp", "clamp_", "addcmul", "addcmul_", "sub", "sub_",
    "div", "lerp", "where", "sin", "copy_", "_to_copy", "clone", "constant_pad_nd",
}  # fmt: skip
_CONVOLUTION = {
    "convolution", "_convolution_pointwise", "_convolution_transpose_pointwise", "mm", "addmm", "bmm", "baddbmm",
}  # fmt: skip  # Winograd's are products of matrices


class Ledger(TorchDispatchMode):
    """Seconds by kind of operation, and the convolutions' work, while it is entered.

    What filters every channel alone is resampling.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = defaultdict(float)
        self.gflop = 0.0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run one operation and book it."""
        start = time.perf_counter()
        result = func(*args, **(kwargs or {}))
        kind = _kind(func, args)
        self.seconds[kind] += time.perf_counter() - start
        if kind == "convolution" and func is torch.ops.aten.convolution.default:
            is_transposed = args[6]
            self.gflop += 2 * (args[0] if is_transposed else result).numel() * args[1][0].numel() / 1e9
        return result


def _kind(func: Any, args: tuple) -> str:
    """Which of KINDS an operation is; a convolution with one channel a group filters every channel alone."""
    name = func.overloadpacket.__name__
    if name in _CONVOLUTION:
        return "resampling" if "convolution" in name and args[1].shape[1] == 1 < args[0].shape[1] else "convolution"
    return "elementwise" if name in _ELEMENTWISE else "rest"


def profile(walk: Any, rounds: int = 3) -> list[dict[str, Any]]:
    """One entry a piece: its name, its pixels, and ms of each kind, medians of some rounds; operations run one by one.

    `walk` is a `stylegan.bench.network.Walk` with a PyTorch engine.
    """
    taken = [[] for _ in walk.pieces]
    for _ in range(rounds):
        state = None
        for index in range(len(walk.pieces)):
            with Ledger() as ledger:
                state = walk.run(index, state, index)
            taken[index].append(dict(ledger.seconds))
    return [{"piece": piece.name, "px": piece.resolution,
             **{kind: 1000 * statistics.median(each.get(kind, 0.0) for each in rounds) for kind in KINDS}}
            for piece, rounds in zip(walk.pieces, taken, strict=True)]  # fmt: skip
