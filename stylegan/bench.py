"""Speed as ratios measured in one run: our picture against a textbook implementation and against the machine's floor.

Two or more ways of doing the same are timed in turn, round after round, and medians compared, because shared machines
change speed by the second. Absolute milliseconds belong to the machine and the minute they were taken in.

Letters: N batch, I input channels, O output channels, R resolution, L rows of W+, D width of w.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from stylegan.data.images import open_images, sample_sets
from stylegan.device import describe_device
from stylegan.networks.config import GeneratorConfig
from stylegan.networks.generator import Generator, build_generator
from stylegan.networks.stylegan2 import Noise, StyledConv, Synthesis, ToRGB
from stylegan.ops.bias_act import SQRT2
from stylegan.ops.upfirdn import upfirdn, upsample
from stylegan.pixels import encode_jpeg, encode_png, to_pixels
from stylegan.training.config import TrainConfig
from stylegan.training.trainer import Trainer


@dataclass(frozen=True)
class RenderRow:
    """One network: medians in ms, the ratio textbook / ours, and the share of the floor that ours reaches (0 to 1)."""

    name: str
    gflop: float
    textbook_ms: float
    ours_ms: float
    speedup: float
    floor_ms: float
    share_of_floor: float
    largest_difference: float
    jpeg_ms: float
    png_ms: float


@dataclass(frozen=True)
class TrainRow:
    """One resolution: images a second, ms of a step with and without R1, and the share of the floor."""

    name: str
    images_per_second: float
    step_ms: float
    step_with_r1_ms: float
    gflop_per_image: float
    share_of_floor: float


def interleave(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each way, timed in turn for `rounds` rounds after one round that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if turn:
                taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in taken.items()}


def convolution_rate(rounds: int = 5) -> float:
    """The best float32 convolution rate of this machine in GFLOP/s, over a few shapes that StyleGAN uses."""
    best = 0.0
    with torch.inference_mode():
        for channels, size, num in ((512, 32, 1), (128, 128, 1), (128, 32, 16)):
            x = torch.randn(num, channels, size, size).contiguous(memory_format=torch.channels_last)
            weight = torch.randn(channels, channels, 3, 3).contiguous(memory_format=torch.channels_last)
            gflop = 2 * 9 * channels**2 * size**2 * num / 1e9
            seconds = interleave({"conv": lambda x=x, w=weight: F.conv2d(x, w, padding=1)}, rounds)["conv"]
            best = max(best, gflop / seconds)
    return best


def bench_render(resolutions: tuple[int, ...] = (64, 256), rounds: int = 7) -> list[RenderRow]:
    """Time one picture of StyleGAN2 (channel_base 16384, random weights) at each resolution, alone."""
    rate, rows = convolution_rate(), []
    for resolution in resolutions:
        generator = build_generator(GeneratorConfig(resolution=resolution)).eval().requires_grad_(False)
        rows.append(_render_row(f"StyleGAN2 {resolution}", generator, rate, rounds))
    return rows


def _render_row(name: str, generator: Generator, rate: float, rounds: int) -> RenderRow:
    """One line of `bench_render`."""
    ws = generator.map(torch.randn(1, generator.z_dim)).ws
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        textbook_synthesis(generator.synthesis, ws)
    gflop = counter.get_total_flops() / 1e9
    with torch.inference_mode():
        image, reference = generator.synthesize(ws), textbook_synthesis(generator.synthesis, ws)
        seconds = interleave(
            {"textbook": lambda: textbook_synthesis(generator.synthesis, ws), "ours": lambda: generator.synthesize(ws)},
            rounds,
        )
        pixels = to_pixels(image.clamp(-1, 1))[0]
        encoding = interleave({"jpeg": lambda: encode_jpeg(pixels), "png": lambda: encode_png(pixels)}, rounds)
    ms = {key: value * 1000 for key, value in (seconds | encoding).items()}
    floor = gflop / rate * 1000
    return RenderRow(name, gflop, ms["textbook"], ms["ours"], ms["textbook"] / ms["ours"], floor, floor / ms["ours"],
                     float((image - reference).abs().max()), ms["jpeg"], ms["png"])  # fmt: skip


def textbook_synthesis(synthesis: Synthesis, ws: torch.Tensor) -> torch.Tensor:
    """The same pictures as tutorials compute them: grouped convolutions with modulated weights, NCHW, float32.

    It reads a skip network's own tensors. ws [N, L, D] -> image [N, C, R, R], constant noise.
    """
    row, x, image = 0, None, None
    for block in synthesis.blocks():
        if block.is_first:
            x = block.const.expand(len(ws), -1, -1, -1)
        for layer in [part for part in (getattr(block, "conv0", None), block.conv1) if part is not None]:
            x = _textbook_layer(layer, x, ws[:, row])
            row += 1
        image = None if image is None else upsample(image, block.resample_filter)
        rgb = _textbook_rgb(block.torgb, x, ws[:, row])
        image = rgb if image is None else image + rgb
    return image


def _textbook_layer(layer: StyledConv, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Modulated convolution, noise, bias, activation, each as a pass of its own."""
    weight = layer.weight[None] * layer.affine(w)[:, None, :, None, None]  # [N, O, I, 3, 3]
    weight = weight * (weight.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    num, outputs, inputs = weight.shape[:3]
    x = x.reshape(1, num * inputs, *x.shape[2:])
    if layer.up == 1:
        x = F.conv2d(x, weight.reshape(-1, inputs, 3, 3), padding=1, groups=num)
    else:
        x = F.conv_transpose2d(x, weight.transpose(1, 2).reshape(-1, outputs, 3, 3), stride=2, groups=num)
        x = upfirdn(x, layer.resample_filter, padding=(1, 1), gain=4.0)
    x = x.reshape(num, outputs, *x.shape[2:])
    noise = Noise().of(layer, num)
    x = x if noise is None else x + noise
    return F.leaky_relu(x + layer.bias[:, None, None], 0.2) * SQRT2


def _textbook_rgb(layer: ToRGB, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Grouped 1x1 convolution to the picture."""
    weight = layer.weight[None] * (layer.affine(w) * layer.weight_gain)[:, None, :, None, None]
    num, inputs = x.shape[:2]
    y = F.conv2d(x.reshape(1, -1, *x.shape[2:]), weight.reshape(-1, inputs, 1, 1), groups=num)
    return y.reshape(num, -1, *y.shape[2:]) + layer.bias[:, None, None]


def bench_train(resolutions: tuple[int, ...] = (64,), steps: int = 6) -> list[TrainRow]:
    """Time training steps of the slim preset on the shipped sample pictures."""
    rate = convolution_rate()
    return [_train_row(resolution, rate, steps) for resolution in resolutions]


def _train_row(resolution: int, rate: float, steps: int) -> TrainRow:
    """One line of `bench_train`; steps with and without R1 are timed in turn."""
    config = TrainConfig(data="cartoon-sample-64", out="nowhere", preset="slim", resolution=resolution, device="cpu",
                         r1_interval=2).resolve()  # fmt: skip
    trainer = Trainer(config, open_images(sample_sets()[config.data], resolution))
    trainer.augment.p = 0.2
    trainer.step()
    trainer.steps = 1  # the next step has no R1
    with FlopCounterMode(display=False) as counter:
        trainer.step()
    gflop = counter.get_total_flops() / 1e9
    seconds = interleave({"r1": trainer.step, "plain": trainer.step}, steps)
    whole = (15 * seconds["plain"] + seconds["r1"]) / 16  # R1 every 16 steps, as the presets have it
    return TrainRow(f"slim {resolution} px, batch {config.batch}", config.batch / whole, seconds["plain"] * 1000,
                    seconds["r1"] * 1000, gflop / config.batch, gflop / rate / seconds["plain"])  # fmt: skip


def to_report(rows: list[RenderRow] | list[TrainRow]) -> dict:
    """The machine and the rows as JSON-able values."""
    return {"machine": describe_device(), "torch": torch.__version__, "rows": [asdict(row) for row in rows]}
