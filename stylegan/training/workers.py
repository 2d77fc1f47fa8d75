"""Parts of a batch computed side by side by threads of one process, each with its own part of the processor's threads.

PyTorch's own threads divide every single operation and wait for each other after each; where anything else runs on the
machine, the page of this very program for one, most of their time goes into waiting. Threads that each take a part of
the batch through a whole phase meet once a phase.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import nn

LEAST_ROWS = 8  # of a part; in smaller ones Python, which one thread runs at a time, is what takes the time
Result = TypeVar("Result")
Part = TypeVar("Part")


def num_workers(rows: int, group: int, threads: int) -> int:
    """How many equal parts of `rows` pictures to compute side by side; each holds whole groups of `group`."""
    wanted = range(2, min(threads, rows // LEAST_ROWS) + 1)
    return max((num for num in wanted if rows % num == 0 and (rows // num) % group == 0), default=1)


class Workers:
    """`num` threads that share the processor's; with one, everything happens in the caller's."""

    def __init__(self, num: int):
        self.num = num
        each = max(torch.get_num_threads() // num, 1)
        self._pool = ThreadPoolExecutor(num, "part", torch.set_num_threads, (each,)) if num > 1 else None

    def each(self, work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
        """`work` of every part, in the order of the parts; what one raises is raised here."""
        if self._pool is None:
            return [work(part) for part in parts]
        return list(self._pool.map(work, parts))


def add_gradients(parameters: Sequence[nn.Parameter], gradients: Sequence[torch.Tensor | None]) -> None:
    """Add to the parameters' own gradients, which are laid out in memory as they are."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            continue
        if parameter.grad is None:
            parameter.grad = torch.empty_like(parameter).copy_(gradient)
        else:
            parameter.grad.add_(gradient)
