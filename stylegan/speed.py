"""A stopwatch for shared machines: ways of doing the same are timed in turn, and the machine's own floor.

Machines change speed by the second, so only what was measured in turn, round after round, can be compared.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F


def interleave(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each way, timed in turn for `rounds` rounds after one round that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if turn:
                taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in taken.items()}


def convolution_rate(dtype: torch.dtype = torch.float32, rounds: int = 5) -> float:
    """The best convolution rate of this processor in GFLOP/s, over a few shapes that StyleGAN uses."""
    best = 0.0
    with torch.inference_mode():
        for channels, size, num in ((512, 32, 1), (128, 128, 1), (128, 32, 16)):
            x = torch.randn(num, channels, size, size, dtype=dtype).contiguous(memory_format=torch.channels_last)
            weight = torch.randn(channels, channels, 3, 3, dtype=dtype).contiguous(memory_format=torch.channels_last)
            gflop = 2 * 9 * channels**2 * size**2 * num / 1e9
            seconds = interleave({"conv": lambda x=x, w=weight: F.conv2d(x, w, padding=1)}, rounds)["conv"]
            best = max(best, gflop / seconds)
    return best
