"""Every kind of direction for one checkpoint at once, as it is done for the models that ship."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from stylegan.checkpoint.file import build, model_hash, read_any
from stylegan.data.images import ImageSet, open_images, sample_sets
from stylegan.directions.attributes import AttributeStep, Found, find_attributes
from stylegan.directions.classifier import judge_side
from stylegan.directions.effects import EffectMatrix, noted
from stylegan.directions.pca import find_pca
from stylegan.directions.sefa import find_sefa
from stylegan.directions.store import directions_path, keep_directions, tied
from stylegan.latents import Direction
from stylegan.networks.generator import Generator

NUM_DESCRIBE = 32  # latents on which blind directions are measured


def labelled_images(generator: Generator, data: str | Path) -> ImageSet:
    """The labelled pictures as the judge wants them, the model's channels and at most 64 px; DataError if unusable."""
    path = sample_sets().get(str(data), data)
    return open_images(path, judge_side(generator.resolution), img_channels=generator.img_channels)


def find_blind(generator: Generator, kinds: Sequence[str] = ("pca", "sefa"), num: int = 16, samples: int = 0,
               seed: int = 0, layers: tuple[int, int] | None = None) -> list[Direction]:
    """`num` directions of each kind that needs no labels, fewer where W is narrower; `samples` 0 is each one's own."""
    num = min(num, generator.w_dim)
    directions = []
    if "pca" in kinds:
        directions += find_pca(generator, num, samples or 10_000, seed)
    if "sefa" in kinds:
        directions += find_sefa(generator, num, layers, samples or 4_000, seed)
    return directions


def describe(directions: list[Direction], found: Found) -> list[Direction]:
    """The directions with the attributes that they were measured to move noted in their provenance."""
    probe = found.probe.fewer(NUM_DESCRIBE)
    return [
        replace(direction, info={
            **direction.info, "effects": noted(probe.effects(direction), found.matrix.attributes)})
        for direction in directions
    ]


def build_all(checkpoint_path: str | Path, data: str | Path, num: int = 16, samples: int = 4_000, seed: int = 0,
              rename: dict[str, str] | None = None, on_step: Callable[[AttributeStep], None] | None = None,
              ) -> tuple[list[Direction], EffectMatrix]:
    """Named, PCA and SeFa directions of a checkpoint, saved beside it, and the matrix of what the named ones do.

    Raises DirectionError when no named direction works, and CheckpointError or DataError as the readers do.
    """
    checkpoint = read_any(checkpoint_path)
    generator = build(checkpoint)
    found = find_attributes(generator, labelled_images(generator, data), on_step, samples=samples, seed=seed,
                            rename=rename)
    blind = describe(find_blind(generator, num=num, seed=seed), found)
    directions = tied([*found.directions, *blind], model_hash(checkpoint))
    keep_directions(directions_path(checkpoint_path), directions)
    return directions, found.matrix
