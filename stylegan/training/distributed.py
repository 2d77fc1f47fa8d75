"""Several processes as one trainer: who I am among them, sums over all of them, and the first one's word.

The processes come from torchrun, which says in the environment who is who; they may be on several machines. Gradients
are averaged by one flat sum after each phase rather than by DistributedDataParallel, whose hooks know neither several
backward passes a step nor the double backward of R1; the code path is the same for one process, where every method
returns at once. Words go by gloo between processors, gradients by NCCL where they lie on GPUs.
"""

from __future__ import annotations

import atexit
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist

from stylegan.errors import StyleGANError, TrainingError
from stylegan.training.interface import interface_towards

PATIENCE = timedelta(minutes=3)  # for one another while training
LONG_PATIENCE = 10 * PATIENCE  # while pictures are read, and while the first one judges the last snapshot
BLOCK_BYTES = 64 << 20
CONTINUES = "the same command, with as many processes as divide the batch, continues from the last saved state."

Made = TypeVar("Made")


@dataclass(frozen=True)
class Ranks:
    """This process's place: `rank` of `world`, and `local` among those of its machine; `first` has the word."""

    rank: int = 0
    world: int = 1
    local: int = 0
    device: torch.device = torch.device("cpu")
    first: int = 0
    patient: Any = None  # the group whose members wait for LONG_PATIENCE, for what is no training

    @property
    def is_first(self) -> bool:
        """True for the one process that writes the run folder."""
        return self.rank == self.first

    def average(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace float tensors by their mean over all ranks, in place, in one exchange."""
        if self.world == 1 or not tensors:
            return
        flat = torch.cat([tensor.detach().flatten().float() for tensor in tensors])
        _exchange(dist.all_reduce, flat)
        flat /= self.world
        start = 0
        for tensor in tensors:
            tensor.copy_(flat[start : start + tensor.numel()].view(tensor.shape))
            start += tensor.numel()

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums of some numbers over all ranks."""
        if self.world == 1:
            return list(values)
        numbers = torch.tensor(list(values), dtype=torch.float64)
        _exchange(dist.all_reduce, numbers)
        return numbers.tolist()

    def agree(self, values: Sequence[float]) -> list[float]:
        """The first rank's numbers, at every rank."""
        if self.world == 1:
            return list(values)
        numbers = torch.tensor(list(values), dtype=torch.float64)
        _exchange(dist.broadcast, numbers, self.first)
        return numbers.tolist()

    def gather(self, text: str) -> list[str]:
        """What every rank says, in the order of ranks; for the times between training, with long patience."""
        if self.world == 1:
            return [text]
        data = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8) if text else torch.empty(0).byte()
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world)]
        _exchange(dist.all_gather, sizes, torch.tensor([len(data)]), group=self.patient)
        longest = max(int(size) for size in sizes) or 1
        texts = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.world)]
        padded = torch.cat([data, torch.zeros(longest - len(data), dtype=torch.uint8)])
        _exchange(dist.all_gather, texts, padded, group=self.patient)
        return [bytes(one[: int(size)].numpy()).decode() for one, size in zip(texts, sizes, strict=True)]

    def share(self, data: bytes) -> bytes:
        """The first rank's bytes, at every rank."""
        if self.world == 1:
            return data
        size = torch.tensor([len(data)])
        _exchange(dist.broadcast, size, self.first, group=self.patient)
        whole = bytearray(data) if self.is_first else bytearray(int(size))
        numbers = torch.frombuffer(whole, dtype=torch.uint8)
        for block in numbers.split(BLOCK_BYTES):
            _exchange(dist.broadcast, block, self.first, group=self.patient)
        return bytes(whole)

    def together(self, part: Callable[[], Made]) -> Made:
        """Do `part` at every rank; when it fails at one of them, all end, and say in one sentence why and where."""
        if self.world == 1:
            return part()
        made, problem = None, None
        try:
            made = part()
        except StyleGANError as error:
            problem = error
        for rank, said in enumerate(self.gather(f"{socket.gethostname()}\0{problem}" if problem else "")):
            if said and problem is None:
                host, _, sentence = said.partition("\0")
                raise TrainingError(f"Process {rank} of {self.world}, on {host}, cannot go on: {sentence}")
        if problem is not None:
            raise problem
        return made


def _exchange(operation: Callable[..., Any], *arguments: Any, group: Any = None) -> None:
    """One collective operation; TrainingError when another rank has gone or does not answer."""
    try:
        operation(*arguments, group=group)
    except RuntimeError as error:
        said = str(error)
        place = re.search(r"\[([0-9a-fA-F.:]+)\]:\d+", said)
        where = f" (at {place[1]})" if place else ""
        if "timed out" in said.lower() or "timeout" in said.lower():
            minutes = (PATIENCE if group is None else LONG_PATIENCE).total_seconds() / 60
            raise TrainingError(
                f"Another of the training processes{where} has not answered for {minutes:g} minutes, so this run "
                f"cannot go on; see that its machine and the network are up, then {CONTINUES}"
            ) from error
        raise TrainingError(
            f"Another of the training processes{where} has ended, so this run cannot go on; its own words say why, and "
            + CONTINUES
        ) from error


@contextmanager
def joined(device: str = "auto") -> Iterator[Ranks]:
    """The group of processes that torchrun started, or this process alone; left again at the end.

    `device` as in the settings; with NCCL each process takes the GPU of its local rank. Raises TrainingError when the
    others do not come.
    """
    world = num_ranks()
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
        os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")  # else a lost rank aborts this one without a word
    patient = _meet("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    try:
        yield Ranks(rank, world, local, place, patient=patient)
    finally:
        dist.destroy_process_group()


def _meet(backend: str) -> Any:
    """Find the other processes; the group for what takes longer than a step."""
    master = os.environ.get("MASTER_ADDR", "localhost")
    interface = interface_towards(master)
    if interface:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)
    try:
        dist.init_process_group(backend, timeout=PATIENCE)
        return dist.new_group(timeout=LONG_PATIENCE)
    except (RuntimeError, ValueError) as error:
        known = os.environ.get("GLOO_SOCKET_IFNAME", "none chosen")
        raise TrainingError(
            f"The training processes did not find each other through {master} (network interface {known}); give "
            "torchrun an address and a free port that all machines reach, with GLOO_SOCKET_IFNAME the interface to it."
        ) from error


def leave() -> NoReturn:
    """End one of several processes with success, once all is written, at once.

    A process that took Python down in the ordinary way was aborted ("terminate called"), seldom and never on demand,
    and torchrun calls that a failed run; a thread of gloo's that comes for Python's lock then is the likely cause.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def num_ranks() -> int:
    """How many processes torchrun started, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))
