"""Where networks run and how exactly: device, precision, evaluation mode, the memory allocator. No torch at import."""

from __future__ import annotations

import ctypes
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from stylegan.errors import RequestError

if TYPE_CHECKING:
    import torch


# What PyTorch gives to MKL's vector functions (aten/src/ATen/cpu/vml.h).
VECTOR_FUNCTIONS = ("acos", "asin", "atan", "ceil", "cos", "cosh", "erf", "erfc", "erfinv", "exp", "expm1", "floor",
                    "lgamma", "log", "log10", "log1p", "log2", "round", "rsqrt", "sigmoid", "sin", "sinh", "sqrt",
                    "tan", "tanh", "trunc")  # fmt: skip


def tune_allocator() -> bool:
    """Keep large freed buffers instead of giving them back to Linux, so that they are not paged in again each time.

    Call it before torch is imported. True when glibc took the three settings; STYLEGAN_KEEP_MALLOC=1 leaves all alone.
    """
    if os.environ.get("STYLEGAN_KEEP_MALLOC") == "1" or platform.libc_ver()[0] != "glibc":
        return False
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    try:
        mallopt = ctypes.CDLL(None).mallopt
        settings = ((mmap_threshold, 1 << 30), (trim_threshold, 2**31 - 1), (top_pad, 64 << 20))
        return all([mallopt(name, value) == 1 for name, value in settings])
    except (OSError, AttributeError):
        return False


def settle_vector_math() -> None:
    """Call each of MKL's vector functions once on one thread, before several threads may make the first call together.

    MKL up to 2024.2 chooses a function's code at its first call; where threads make that call at the same moment, one
    of them may get a code of low accuracy for it, with errors of 2e-4 (PyTorch issue 188792; seen here in one process
    of five). So whatever room computes first calls this at import.
    """
    import torch

    for dtype in (torch.float32, torch.float64):
        one = torch.full([1], 0.5, dtype=dtype)
        for name in VECTOR_FUNCTIONS:
            getattr(torch, name)(one)


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; `auto` is the first GPU if there is one, else the processor."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except Exception as error:
        raise RequestError(f"The device {name[:40]!r} cannot be used here; try auto or cpu.") from error
    return device


def autocast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where it is faster than float32 (GPUs that have it, processors with AMX tiles), else float32."""
    import torch

    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.bfloat16 if device.type == "cpu" and _has_amx() else torch.float32


def training_dtype(device: torch.device, precision: str = "auto") -> torch.dtype:
    """The type that networks train in: `fp32`, `bf16` or `fp16` as asked, with `auto` what the device is quick at."""
    import torch

    asked = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return asked.get(precision) or autocast_dtype(device)


def describe_device(device: torch.device | None = None) -> str:
    """One line on a device: name, cores or memory, and the precision it is quick at."""
    import torch

    device = device or pick_device()
    precision = "bfloat16" if autocast_dtype(device) == torch.bfloat16 else "float32"
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        return f"{about.name}, {about.total_memory / 2**30:.0f} GiB, {precision}"
    threads = torch.get_num_threads()
    return f"{device.type}, {threads} thread{'s' if threads != 1 else ''}, {precision}"


def total_memory(device: torch.device) -> int | None:
    """Bytes of memory that this program may use on the device at most; None when nobody says."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    limits = [_memory_line("/proc/meminfo", "MemTotal:"), _number_in("/sys/fs/cgroup/memory.max"),
              _number_in("/sys/fs/cgroup/memory/memory.limit_in_bytes")]
    return min((limit for limit in limits if limit is not None), default=None)


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be used on the device, a container's limit included; None when nobody says."""
    import torch

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = [_memory_line("/proc/meminfo", "MemAvailable:")]
    for limit, used, about in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        most, taken = (_number_in(f"/sys/fs/cgroup/{name}") for name in (limit, used))
        if most is not None and taken is not None:  # files that are only kept in case they are read again do not count
            free.append(max(most - taken + (_memory_line(f"/sys/fs/cgroup/{about}", "inactive_file") or 0), 0))
    room = min((each for each in free if each is not None), default=None)
    return None if room is None else room + _idle_heap()


def _idle_heap() -> int:
    """Bytes that this process holds but does not use, as `tune_allocator` makes it; 0 where glibc does not tell."""
    names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    about = type("Mallinfo", (ctypes.Structure,), {"_fields_": [(name, ctypes.c_size_t) for name in names]})
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError):
        return 0
    mallinfo.restype = about
    return mallinfo().fordblks


def _memory_line(path: str, name: str) -> int | None:
    """Bytes of an entry of a file of the kernel's, as /proc/meminfo is; None when there is none."""
    try:
        with open(path, encoding="ascii") as file:
            found = next((line.split() for line in file if line.startswith(name)), None)
            return None if found is None else int(found[1]) * (1024 if found[-1] == "kB" else 1)
    except (OSError, ValueError, IndexError):
        return None


def _number_in(path: str) -> int | None:
    """The number in a file of the kernel's; None without the file and where it says `max`."""
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


@contextmanager
def eval_mode(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """Run a network as in use; each sub-module returns to the mode that it had."""
    before = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield module
    finally:
        for part, training in before:
            part.training = training


@contextmanager
def full_precision() -> Iterator[None]:
    """Exact and repeatable arithmetic: no autocast, no TF32, one cuDNN algorithm; restored on leaving.

    Autocast belongs to a thread, the other settings to the process: the first thread to come in sets them and the last
    one to leave restores them, whatever order they leave in.
    """
    import torch

    with _EXACT.held(), torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        yield


class _ExactBackends:
    """The process-wide settings of `full_precision`, held by any number of threads at a time."""

    def __init__(self) -> None:
        self._lock, self._holders, self._settings = threading.Lock(), 0, ExitStack()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Exact settings for as long as anybody is inside."""
        with self._lock:
            if not self._holders:
                self._set()
            self._holders += 1
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                if not self._holders:
                    self._settings.close()

    def _set(self) -> None:
        """Change the settings, and remember how to restore them."""
        import torch

        matmul = torch.backends.cuda.matmul
        self._settings.callback(setattr, matmul, "allow_tf32", matmul.allow_tf32)
        matmul.allow_tf32 = False
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        self._settings.enter_context(exact)


_EXACT = _ExactBackends()


def _has_amx() -> bool:
    """True when the processor has AMX tiles; without them bfloat16 convolutions are slower than float32."""
    import torch

    try:
        return bool(torch.cpu._is_amx_tile_supported())
    except AttributeError:
        return False
