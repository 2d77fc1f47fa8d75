"""How long a picture takes: ours against a textbook implementation and against the machine's floor, in one run.

Letters: N batch, L rows of W+, D width of w, H and W pixels, C channels.
"""

from __future__ import annotations

import io
import itertools
import math
import statistics
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from stylegan.bench.network import SHOWN, Walk, published_config, random_network
from stylegan.bench.peer import peer
from stylegan.bench.profile import Ledger, profile
from stylegan.bench.textbook import Textbook
from stylegan.device import autocast_dtype, full_precision
from stylegan.engines import openvino
from stylegan.engines.choose import ChosenEngine, improve
from stylegan.engines.plain import PlainEngine
from stylegan.engines.walk import Engine
from stylegan.networks.generator import Generator
from stylegan.pixels import encode_jpeg, encode_png, to_pixels
from stylegan.speed import convolution_rate, interleave

ROWS = (("stylegan2", 64), ("stylegan2", 256), ("stylegan2", 1024), ("stylegan3", 256), ("stylegan1", 64),
        ("stylegan1", 256))  # fmt: skip
TEXTBOOK, AS_USERS_GET_IT = "textbook", "textbook, Linux's allocator"
EXACT_DB = 99.0  # what is printed where no pixel differs


@dataclass(frozen=True)
class RenderRow:
    """One network, one picture at a time; times in ms are medians of rounds in which all ways took turns.

    `ms` by way of rendering; `best` is our quickest. `speedup` is textbook / best, `speedup_plain` textbook / torch
    float32, `speedup_as_users_get_it` the textbook with Linux's allocator / best. `gflop` counts the convolutions,
    `floor_ms` is that work at the best rate of PyTorch's own float32 convolution in this run, and `share_of_floor` is
    floor / best; formulations that do less work, and bfloat16, can pass 1.
    `edit` says for each piece which part of a full picture an edit costs that begins there (what comes before is kept),
    `edit_last_third` the same for the last third of W+'s rows, `preview` for each smaller size (pixels) which part the
    picture of that size costs. `psnr_db` compares uint8 pixels with torch float32, 99 where none differs;
    `largest_difference` is torch float32 against the textbook, of pictures about [-1, 1]. `peak_mib` is the memory of
    network and picture. `encode_ms` by format. `profile`: ms by piece and kind of operation, when asked for.
    """

    name: str
    gflop: float
    ms: dict[str, float]
    best: str
    speedup: float
    speedup_plain: float
    speedup_as_users_get_it: float
    floor_ms: float
    share_of_floor: float
    edit: dict[str, float]
    edit_last_third: float
    preview: dict[str, float]
    psnr_db: dict[str, float]
    largest_difference: float
    peak_mib: float
    encode_ms: dict[str, float]
    profile: list[dict[str, Any]]


def bench_render(
    rows: tuple[tuple[str, int], ...] = ROWS, rounds: int = 7, profiled: bool = False
) -> Iterator[RenderRow]:
    """Time one picture of each (family, resolution) with random weights of the published widths, row by row."""
    for family, resolution in rows:
        yield _render_row(family, resolution, rounds, profiled)


def _render_row(family: str, resolution: int, rounds: int, profiled: bool) -> RenderRow:
    """One line of `bench_render`."""
    config = published_config(family, resolution)
    generator, ws = random_network(config)
    textbook, walks = Textbook(generator), {engine.name: Walk(engine, generator, ws) for engine in engines(generator)}
    plain = next(iter(walks.values()))
    with full_precision(), torch.no_grad(), ExitStack() as stack:
        reference, images = textbook(ws), {name: walk.run().image.clone() for name, walk in walks.items()}
        pixels = {name: to_pixels(image)[0] for name, image in images.items()}
        beside = stack.enter_context(peer(config.to_json(), TEXTBOOK, tuned=False))
        ways = {TEXTBOOK: lambda: textbook(ws), AS_USERS_GET_IT: beside.render}
        rate = convolution_rate()
        seconds = interleave(ways | {name: walk.run for name, walk in walks.items()}, rounds)
        rate = max(rate, convolution_rate())
        best = min(walks, key=lambda name: seconds[name])
        parts = piece_seconds(walks[best], rounds)
        encoding = interleave(encoders(pixels[plain.engine.name]), rounds)
        operations = profile(plain) if profiled else []
    ms = {name: 1000 * value for name, value in seconds.items()}
    gflop, exact = convolution_gflop(lambda: textbook(ws)), pixels[plain.engine.name]
    floor = gflop / rate * 1000
    return RenderRow(
        f"{SHOWN[family]} {resolution}", gflop, ms, best, ms[TEXTBOOK] / ms[best],
        ms[TEXTBOOK] / ms[plain.engine.name], ms[AS_USERS_GET_IT] / ms[best], floor, floor / ms[best],
        *shares(walks[best], parts, generator), {name: psnr(found, exact) for name, found in pixels.items()},
        float((images[plain.engine.name] - reference).abs().max()), peak_memory(config.to_json()),
        {name: 1000 * value for name, value in encoding.items()}, operations,
    )  # fmt: skip


def engines(generator: Generator) -> list[Engine]:
    """Every engine that this machine has for a network: torch float32 first, and last the one that is served."""
    dtype, synthesis = autocast_dtype(torch.device("cpu")), generator.synthesis
    found: list[Engine] = [PlainEngine(synthesis)]
    if dtype != torch.float32:
        found.append(PlainEngine(synthesis, dtype))
    if openvino.version() is not None:
        other = openvino.OpenVinoEngine(synthesis, dtype, found[-1])
        served = ChosenEngine(synthesis, found[-1], "0" * 64, None, nullcontext, dtype)
        improve(weakref.ref(served))
        found += [other] if other.compile() else []
        found += [served] if 0 < len(served.chosen) < len(synthesis.pieces()) - 1 else []
    return found


def convolution_gflop(run: Callable[[], object]) -> float:
    """The work of the convolutions that mix channels, in GFLOP; filters on single channels are left out."""
    with Ledger() as ledger:
        run()
    return ledger.gflop


def piece_seconds(walk: Walk, rounds: int) -> list[float]:
    """Median seconds of each piece, run one after another; the first round does not count."""
    taken: list[list[float]] = [[] for _ in walk.pieces]
    for turn in range(rounds + 1):
        state = None
        for index, times in enumerate(taken):
            start = time.perf_counter()
            state = walk.run(index, state, index)
            times += [time.perf_counter() - start] if turn else []
    return [statistics.median(times) for times in taken]


def shares(walk: Walk, seconds: list[float], generator: Generator) -> tuple[dict, float, dict]:
    """The fields `edit`, `edit_last_third` and `preview` of a row, from the seconds of its pieces."""
    before = [0.0, *itertools.accumulate(seconds)]  # before[i]: all pieces that come before piece i
    edit = {piece.name: 1 - done / before[-1] for piece, done in zip(walk.pieces, before, strict=False)}
    rows = [row for row, _ in generator.synthesis.affines()]
    wanted = math.ceil(generator.num_ws * 2 / 3)
    last_third = next(piece.name for piece in walk.pieces if max(rows[piece.styles]) >= wanted)
    preview = {str(piece.resolution): done / before[-1]
               for piece, done in zip(walk.pieces[:-1], before[1:], strict=False) if piece.has_image}  # fmt: skip
    return edit, edit[last_third], preview


def encoders(pixels: np.ndarray) -> dict[str, Callable[[], bytes]]:
    """The formats that a picture [H, W, C] could travel in; WebP is here only to be measured."""

    def webp() -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "WEBP", quality=90, method=0)
        return buffer.getvalue()

    return {"jpeg 4:2:0": lambda: encode_jpeg(pixels, halved_colours=True), "jpeg 4:4:4": lambda: encode_jpeg(pixels),
            "webp": webp, "png": lambda: encode_png(pixels)}  # fmt: skip


def psnr(found: np.ndarray, exact: np.ndarray) -> float:
    """Peak signal to noise of uint8 pixels in dB."""
    error = float(np.square(found.astype(np.float64) - exact).mean())
    return min(10 * math.log10(255**2 / error), EXACT_DB) if error else EXACT_DB


def peak_memory(config: str) -> float:
    """MiB that a network of this config's JSON and a picture of torch float32 take at most, in a fresh process."""
    with peer(config, "plain", tuned=True) as other:
        other.render()
        return other.memory
