"""What a run will cost, before anything of it starts: arithmetic, memory, and with the machine's rate, time.

The networks are built and run as fakes that have shapes and no numbers, so a 1024 px run is judged in seconds and takes
no memory; only the convolution rate of the machine is measured.

Letters: N batch, C channels, R resolution.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from stylegan.device import pick_device, training_dtype
from stylegan.networks.discriminator import Discriminator
from stylegan.networks.generator import build_generator
from stylegan.networks.pieces import Noise
from stylegan.training.config import TrainConfig
from stylegan.training.growth import Stage, stages
from stylegan.training.losses import discriminator_loss, generator_loss
from stylegan.training.regularizers import gradient_penalty

SHARE_OF_RATE = 0.4  # of the convolution rate, a whole step (bench train on 2 AVX2 cores: 64 px 0.45, 128 px 0.34)
PROCESS_MB = 400.0  # Python, PyTorch and the libraries themselves
COPIES = 6  # of a weight: itself, gradient, two moments, two averages (the discriminator has four)


@dataclass(frozen=True)
class Estimate:
    """Of one process: GFLOP an image, memory in MB, images a second of all processes together, hours of the budget.

    Of a run that grows, images a second are the mean over the budget, `steps` hold each stage and its own, and the rest
    is that of the last one.
    """

    generator_parameters: int
    discriminator_parameters: int
    gflop_per_image: float
    memory_mb: float
    images_per_second: float
    kimg: float
    hours: float
    state_mb: float
    steps: tuple[tuple[Stage, float], ...] = ()

    def to_text(self) -> str:
        """Two lines for people, and one of a run that grows."""
        size = f"{self.generator_parameters:,} + {self.discriminator_parameters:,} parameters"
        return (f"{size}, {self.gflop_per_image:.1f} GFLOP an image; about {self.memory_mb:,.0f} MB of memory a "
                f"process, {self.state_mb:,.0f} MB on disk a saved state\n"
                f"about {self.images_per_second:.3g} images a second: {self.kimg:,.4g} kimg in {self.hours:,.3g} hours"
                + self._growth())

    def _growth(self) -> str:
        """The line of a run that grows: from which kimg on it trains what, and how quickly."""
        if len(self.steps) == 1:
            return ""
        parts = [f"from {stage.start / 1000:g} kimg {stage.sizes} px ({speed:.3g} a second)"
                 for stage, speed in self.steps]  # fmt: skip
        return "\ngrows: " + ", ".join(parts)


def estimate(config: TrainConfig, num_classes: int = 0, world: int = 1, rate: float | None = None) -> Estimate:
    """Estimate a resolved config, on a processor within a factor of two; `rate` in GFLOP/s is measured if not given."""
    num, device = max(config.batch // (world * config.accumulate), 1), pick_device(config.device)
    dtype = training_dtype(device, config.precision)
    plan, gflops = stages(config.resolution, config.grow_kimg), []
    for stage in plan:
        with FakeTensorMode(), torch.random.fork_rng(devices=[]):
            generator = build_generator(config.generator(num_classes, stage))
            discriminator = Discriminator(config.discriminator(num_classes, stage))
            phases, activations = _Passes(config, generator, discriminator, num, num_classes, dtype).measure()
        gflops.append(sum(phases[name] * share for name, share in shares_of_step(config).items()))
    sizes = [sum(p.numel() for p in network.parameters()) for network in (generator, discriminator)]
    weights = 4 * (COPIES * sizes[0] + (COPIES - 2) * sizes[1])
    state = 4 * (5 * sizes[0] + 3 * sizes[1])  # weights and moments of both, two averages
    rate = rate or convolution_rate(device, dtype)
    steps = [(stage, world * rate * SHARE_OF_RATE / gflop) for stage, gflop in zip(plan, gflops, strict=True)]
    images, seconds = _budget(config, steps)
    return Estimate(*sizes, gflops[-1], PROCESS_MB + (weights + activations + state) / 2**20, images / seconds,
                    images / 1000, seconds / 3600, state / 2**20, tuple(steps))  # fmt: skip


def _budget(config: TrainConfig, steps: list[tuple[Stage, float]]) -> tuple[float, float]:
    """Images and seconds of a config's budget, by the images a second of each stage."""
    images = seconds = 0.0
    for stage, speed in steps:
        most = min(stage.end, 1000 * config.kimg or math.inf)
        if config.minutes:
            most = min(most, images + (60 * config.minutes - seconds) * speed)
        seconds += (most - images) / speed
        images = most
        if images < stage.end:
            break
    return images, seconds


def phase_gflop(config: TrainConfig) -> dict[str, float]:
    """GFLOP an image of each phase of a resolved config whenever it runs; PyTorch's own count."""
    with FakeTensorMode(), torch.random.fork_rng(devices=[]):
        generator, discriminator = build_generator(config.generator()), Discriminator(config.discriminator())
        return _Passes(config, generator, discriminator, config.batch, 0, torch.float32).measure()[0]


def shares_of_step(config: TrainConfig) -> dict[str, float]:
    """How much of a step each phase is on average: 1 where it runs every time, less where it is lazy."""
    lazy = {"r1": 1 / config.r1_interval}
    if config.pl_weight:
        lazy["path_length"] = 0.5 / config.pl_interval  # on half a batch
    return {"generator": 1.0, "discriminator": 1.0} | lazy


class _Flops(TorchDispatchMode):
    """Counts floating-point operations; unlike FlopCounterMode it hangs nothing on modules, so gradients nest."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count:
            self.total += count(*args, **(kwargs or {}), out_val=result)
        return result


class _Passes:
    """The passes of one step over a share of the batch, on fakes."""

    def __init__(self, config: TrainConfig, generator, discriminator, num: int, num_classes: int, dtype: torch.dtype):
        self.config, self.generator, self.discriminator, self.num = config, generator, discriminator, num
        self.dtype, self.size = dtype, generator.resolution
        self.label = torch.zeros(num, num_classes) if num_classes else None

    def measure(self) -> tuple[dict[str, float], float]:
        """(GFLOP an image of each phase, bytes of activations of the phase that holds most)."""
        parts = {"generator": self._main_g, "discriminator": self._main_d, "r1": self._penalty,
                 "path_length": self._path_length}  # fmt: skip
        gflop, most = {}, 0
        for name in shares_of_step(self.config):
            held: dict[int, int] = {}

            def note(tensor: torch.Tensor, held: dict[int, int] = held) -> torch.Tensor:
                held[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
                return tensor

            with _Flops() as counter, torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
                parts[name]()
            gflop[name] = counter.total / self.num / 1e9
            most = max(most, sum(held.values()))
        return gflop, most

    def _fakes(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and the ws they were made of."""
        w = self.generator.mapping(torch.zeros(self.num, self.generator.z_dim), self.label)
        ws = w[:, None].expand(-1, self.generator.num_ws, -1)
        return self.generator.synthesis(ws, Noise("random"), self.dtype), ws

    def _main_g(self) -> None:
        """Generator through the discriminator."""
        self.discriminator.requires_grad_(False)
        logits = self.discriminator(self._fakes()[0], self.label, self.dtype)
        generator_loss(logits).mean().backward()
        self.discriminator.requires_grad_(True)

    def _main_d(self) -> None:
        """Discriminator on fakes and reals."""
        self.generator.requires_grad_(False)
        fakes, _ = self._fakes()
        self.generator.requires_grad_(True)
        logits = [self.discriminator(images, self.label, self.dtype) for images in (torch.zeros_like(fakes), fakes)]
        discriminator_loss(*logits).mean().backward()

    def _penalty(self) -> None:
        """R1, and R2 where it is wanted, with their double backward."""
        for _ in range(1 + self.config.r2):
            images = torch.zeros(self.num, 3, self.size, self.size).requires_grad_(True)
            gradient_penalty(self.discriminator(images, self.label, self.dtype), images).mean().backward()

    def _path_length(self) -> None:
        """Path length on the whole share; its half is accounted for by the caller."""
        images, ws = self._fakes()
        (gradient,) = torch.autograd.grad(images.sum(), [ws], create_graph=True)
        gradient.square().sum().backward()


def convolution_rate(device: torch.device, dtype: torch.dtype, seconds: float = 0.3) -> float:
    """The convolution rate in GFLOP/s of a shape that training uses, measured for a moment."""
    channels, size, num = 64, 32, 16
    with torch.inference_mode():
        x = torch.randn(num, channels, size, size, device=device, dtype=dtype).to(memory_format=torch.channels_last)
        weight = torch.randn(channels, channels, 3, 3, device=device, dtype=dtype)
        weight = weight.to(memory_format=torch.channels_last)
        best, deadline = float("inf"), time.perf_counter() + seconds
        while time.perf_counter() < deadline:
            started = time.perf_counter()
            F.conv2d(x, weight, padding=1)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            best = min(best, time.perf_counter() - started)
    return 2 * 9 * channels**2 * size**2 * num / best / 1e9
