"""Several processes as one trainer: who I am among them, sums over all of them, and rank 0's word.

The processes come from torchrun, which says in the environment who is who. Gradients are averaged by one flat sum after
each phase rather than by DistributedDataParallel, whose hooks know neither several backward passes a step nor the
double backward of R1; the code path is the same for one process, where every method returns at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from stylegan.errors import TrainingError

PATIENCE = timedelta(minutes=30)  # how long the others wait while rank 0 judges a snapshot


@dataclass(frozen=True)
class Ranks:
    """This process's place: `rank` of `world`, and `local` among those of its machine."""

    rank: int = 0
    world: int = 1
    local: int = 0
    device: torch.device = torch.device("cpu")

    @property
    def is_first(self) -> bool:
        """True for the one process that writes the run folder."""
        return self.rank == 0

    def average(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace float tensors by their mean over all ranks, in place, in one exchange."""
        if self.world == 1 or not tensors:
            return
        flat = torch.cat([tensor.detach().flatten().float() for tensor in tensors])
        self._exchange(dist.all_reduce, flat)
        flat /= self.world
        start = 0
        for tensor in tensors:
            tensor.copy_(flat[start : start + tensor.numel()].view(tensor.shape))
            start += tensor.numel()

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums of some numbers over all ranks."""
        if self.world == 1:
            return list(values)
        numbers = torch.tensor(list(values), dtype=torch.float64, device=self.device)
        self._exchange(dist.all_reduce, numbers)
        return numbers.tolist()

    def agree(self, values: Sequence[float]) -> list[float]:
        """Rank 0's numbers, at every rank."""
        if self.world == 1:
            return list(values)
        numbers = torch.tensor(list(values), dtype=torch.float64, device=self.device)
        self._exchange(dist.broadcast, numbers, 0)
        return numbers.tolist()

    def _exchange(self, operation, *arguments) -> None:
        """One collective operation; TrainingError when another rank has gone."""
        try:
            operation(*arguments)
        except RuntimeError as error:
            raise TrainingError(
                "Another of the training processes has ended, so this run cannot go on; the same command, with any "
                "number of processes, continues from the last saved state."
            ) from error


@contextmanager
def joined(device: str = "auto") -> Iterator[Ranks]:
    """The group of processes that torchrun started, or this process alone; left again at the end.

    `device` as in the settings; with NCCL each process takes the GPU of its local rank. Raises TrainingError when the
    others do not come.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks()
        return
    if "RANK" not in os.environ:
        raise TrainingError("The environment speaks of several processes but not which one this is; use torchrun.")
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    on_gpu = device != "cpu" and torch.cuda.is_available()
    place = torch.device("cuda", local) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(place)
    try:
        dist.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            "The training processes did not find each other; start them with torchrun on a free port."
        ) from error
    try:
        yield Ranks(rank, world, local, place)
    finally:
        dist.destroy_process_group()


def num_ranks() -> int:
    """How many processes torchrun started, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))
