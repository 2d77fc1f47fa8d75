"""A walk through the latent space of a run's snapshot, as a film that repeats without a jump.

T frames, K faces on the way of each tile, N tiles, L layers, D numbers per layer, R pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch

from stylegan.checkpoint.file import load_generator
from stylegan.device import pick_device
from stylegan.errors import RequestError, TrainingError
from stylegan.film import write_film
from stylegan.latents import Latents
from stylegan.networks.generator import Generator
from stylegan.pixels import grid, to_pixels
from stylegan.seeds import z_of_seeds
from stylegan.training.run import TrainingRun
from stylegan.training.run_files import last_until, numbered

RATE = 24  # frames a second
FACE_SECONDS = 2.0  # about how long the way from one face to the next is
SMALL = 128  # pixels up to which a processor draws a whole sheet in a short time
MOST_TILES, MOST_SECONDS = 64, 120.0


def walk_path(run: TrainingRun, nimg: int) -> Path:
    """Where the walk of the snapshot at `nimg` images belongs."""
    return run.path / f"walk_{int(nimg):09d}.mp4"


def walk_snapshot(run: TrainingRun, nimg: float | None = None) -> tuple[int, Path]:
    """(images seen, file) of the snapshot that a walk at `nimg` shows: the last one until then, the newest without.

    TrainingError when the run has saved none yet.
    """
    found = last_until(run.snapshots(), math.inf if nimg is None else nimg)
    if found is None:
        raise TrainingError(f"{run.name} has saved no model yet; ask for a snapshot, or wait for the next one.")
    return found


def write_walk(
    run: TrainingRun,
    nimg: float | None = None,
    path: Path | None = None,
    seconds: float = 6.0,
    columns: int | None = None,
    rows: int | None = None,
    seed: int = 0,
    device: str = "auto",
    turn: Callable[[], AbstractContextManager[object]] = nullcontext,
    on_frame: Callable[[int, int], object] = lambda done, total: None,
) -> Path:
    """Film `columns` x `rows` tiles walking through W, each on its own closed way, with the snapshot until `nimg`.

    The first frame shows the pictures of the seeds from `seed` on, as the sample grid does; with classes, tiles take
    turns and each keeps its own. The film goes to `path`, or into the run's folder, where it replaces an older walk.
    Each frame is drawn inside `turn()`, which may wait for the device; `on_frame` is told (frames done, frames in all).

    Raises TrainingError without a snapshot or without room on the device, RequestError for sizes that cannot be.
    """
    seen, file = walk_snapshot(run, nimg)
    generator = load_generator(file).to(pick_device(device))
    default = _layout(generator)
    columns, rows = default[0] if columns is None else columns, default[1] if rows is None else rows
    if columns < 1 or rows < 1 or columns * rows > MOST_TILES or not 0.5 <= seconds <= MOST_SECONDS:
        raise RequestError(f"A walk has 1 to {MOST_TILES} tiles and lasts 0.5 to {MOST_SECONDS:g} seconds.")
    target = path or walk_path(run, seen)
    frames = walk_frames(generator, columns, rows, round(seconds * RATE), seed, turn, on_frame)
    try:
        write_film(target, frames, RATE)
    except torch.OutOfMemoryError as error:
        raise TrainingError("The device has no room for a walk now; try again later, or on the CPU.") from error
    if path is None:
        for _, old in numbered(run.path, "walk_", ".mp4"):
            if old != target:
                old.unlink(missing_ok=True)
    return target


def walk_frames(
    generator: Generator,
    columns: int,
    rows: int,
    num_frames: int,
    seed: int = 0,
    turn: Callable[[], AbstractContextManager[object]] = nullcontext,
    on_frame: Callable[[int, int], object] = lambda done, total: None,
) -> Iterator[np.ndarray]:
    """The sheets uint8 [rows R, columns R, C] of one round; after the last comes the first again."""
    faces = _faces(generator, columns * rows, max(3, 2 * int(num_frames / RATE / FACE_SECONDS / 2) + 1), seed)
    for index in range(num_frames):
        on_frame(index, num_frames)
        with turn():
            ws = torch.einsum("k,knld->nld", loop_weights(index / num_frames, len(faces)).to(faces), faces)
            pixels = to_pixels(generator.synthesize(Latents(ws)))  # [N, R, R, C]
        yield grid(pixels, columns)


def loop_weights(t: float, num: int) -> torch.Tensor:
    """Weights [K] of an odd number of points on the smooth closed way through them at 0 <= t < 1; they add up to 1.

    The trigonometric interpolant: a straight way between two points of W passes near the average, where faces are dull,
    but here the squares of the weights add up to 1 as well, so a point under way is as far out as those that it joins.
    """
    angles = 2 * math.pi * (t - torch.arange(num, dtype=torch.float64) / num)  # [K]
    waves = sum(torch.cos(order * angles) for order in range(1, (num - 1) // 2 + 1))
    return (1 + 2 * waves) / num


def _faces(generator: Generator, num: int, stops: int, seed: int) -> torch.Tensor:
    """The latents [K, N, L, D] that the tiles pass; the first ones are those of the seeds from `seed` on."""
    classes = [i % generator.num_classes for i in range(num)] if generator.num_classes else None
    ways = [z_of_seeds(range(seed + k * num, seed + (k + 1) * num), generator.z_dim) for k in range(stops)]
    return torch.stack([generator.map(z, classes).ws for z in ways])


def _layout(generator: Generator) -> tuple[int, int]:
    """Columns and rows that are drawn in a reasonable time: fewer where pictures are large and there is no GPU."""
    return (4, 2) if generator.resolution <= SMALL or generator.device.type != "cpu" else (2, 1)
