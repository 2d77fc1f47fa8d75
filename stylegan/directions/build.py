"""Every kind of direction for one checkpoint at once, as it is done for the models that ship."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from stylegan.data.images import ImageSet, open_images, sample_sets
from stylegan.directions.attributes import AttributeStep, Found, find_attributes
from stylegan.directions.classes import find_classes
from stylegan.directions.classifier import judge_side
from stylegan.directions.effects import EffectMatrix, noted
from stylegan.directions.pca import find_pca
from stylegan.directions.sefa import find_sefa
from stylegan.latents import Direction
from stylegan.networks.generator import Generator

METHODS = ("attributes", "pca", "sefa")
NUM_DESCRIBE = 32  # latents on which blind directions are measured


@dataclass(frozen=True)
class Recipe:
    """What to look for and how: `samples` 0 is each method's own number; `layers` are SeFa's, all when None.

    `conditioned` keeps named directions from moving other attributes; `rename` maps labels to direction names.
    """

    methods: tuple[str, ...] = METHODS
    num: int = 16
    samples: int = 0
    seed: int = 0
    layers: tuple[int, int] | None = None
    conditioned: bool = True
    rename: tuple[tuple[str, str], ...] = ()


def labelled_images(generator: Generator, data: str | Path) -> ImageSet:
    """The labelled pictures as the judge wants them, the model's channels and at most 64 px; DataError if unusable."""
    path = sample_sets().get(str(data), data)
    return open_images(path, judge_side(generator.resolution), img_channels=generator.img_channels)


def find_directions(generator: Generator, recipe: Recipe, data: str | Path | None = None,
                    on_step: Callable[[AttributeStep], None] | None = None,
                    ) -> tuple[list[Direction], EffectMatrix | None]:
    """The directions of a recipe, named ones first, and, given labelled pictures, what the named ones do.

    Without `data`, named directions come from the model's own classes. With it, the others' provenance says which
    attributes they were measured to move. Raises DirectionError or DataError as the parts do.
    """
    blind = find_blind(generator, recipe)
    if data is None:
        named = []
        if "attributes" in recipe.methods:
            named = find_classes(generator, samples=recipe.samples or 4_000, seed=recipe.seed)
        return [*named, *blind], None
    found = find_attributes(generator, labelled_images(generator, data), on_step, samples=recipe.samples or 4_000,
                            seed=recipe.seed, conditioned=recipe.conditioned, rename=dict(recipe.rename))
    named = found.directions if "attributes" in recipe.methods else []
    return [*named, *described(blind, found)], found.matrix


def find_blind(generator: Generator, recipe: Recipe) -> list[Direction]:
    """The recipe's directions that need no labels; at most as many of a kind as W is wide."""
    num = min(recipe.num, generator.w_dim)
    directions = []
    if "pca" in recipe.methods:
        directions += find_pca(generator, num, recipe.samples or 10_000, recipe.seed)
    if "sefa" in recipe.methods:
        directions += find_sefa(generator, num, recipe.layers, recipe.samples or 4_000, recipe.seed)
    return directions


def described(directions: list[Direction], found: Found) -> list[Direction]:
    """The directions with the attributes that they were measured to move noted in their provenance."""
    probe, names = found.probe.fewer(NUM_DESCRIBE), found.matrix.attributes
    return [replace(direction, info={**direction.info, "effects": noted(probe.effects(direction), names)})
            for direction in directions]
