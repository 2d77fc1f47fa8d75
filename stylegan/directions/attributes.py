"""Named directions from labels: sample, judge, fit a linear boundary, condition (InterFaceGAN, arXiv 1907.10786).

Shapes: N samples, D w_dim, L layers, A attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from stylegan.data.images import ImageSet
from stylegan.directions.boundaries import Whitening, condition, fit_normal
from stylegan.directions.classifier import AttributeTable, HeldOut, auc, read_attributes, train_judge
from stylegan.directions.effects import EffectMatrix, Probe, judge_latents, measure, narrow_layers, noted
from stylegan.directions.population import axis_direction, sample_w
from stylegan.errors import DirectionError
from stylegan.latents import Direction, Latents
from stylegan.networks.generator import Generator

MIN_JUDGE_AUC, MIN_BOUNDARY_AUC = 0.75, 0.6  # below these a judge or a straight boundary says too little
MIN_SIDE = 10  # samples that a boundary needs on either side
MIN_EFFECT = 0.5  # standard deviations of its own score that a direction must move, from one end to the other
MIN_SHARE = 0.1  # of the pictures that a yes/no direction must turn, from one end to the other
NUM_PROBES, NUM_PROBES_LAYERS = 96, 32  # latents on which effects are measured, and those of the layer choice
_BATCH = 256


@dataclass(frozen=True, eq=False)
class Found:
    """Named directions, what they were measured to do, and the probe that measured it."""

    directions: list[Direction]
    matrix: EffectMatrix
    probe: Probe


@dataclass(frozen=True, eq=False)
class AttributeStep:
    """One step of the search: how far (0 to 1), what is being done, and on the last step what was found."""

    done: float
    message: str
    found: Found | None = None

    def __str__(self) -> str:
        return f"{self.done:4.0%} {self.message}"


@dataclass(frozen=True, eq=False)
class Boundary:
    """One attribute's boundary: its column, normal [D] in whitened W, and its AUC on samples that were not fitted."""

    column: int
    normal: Tensor
    auc: float
    whitening: Whitening

    def axis(self, others: Tensor | None = None) -> Tensor:
        """The axis [D] of W that crosses the boundary, leaving the scores of `others` (normals [M, D]) alone."""
        normal = self.normal if others is None else condition(self.normal, others)
        return self.whitening.back @ normal


def fit_boundaries(w: Tensor, scores: Tensor, table: AttributeTable, judged: tuple[HeldOut, ...],
                   held_out: float = 0.2) -> tuple[list[Boundary], list[tuple[str, str]]]:
    """A boundary for each attribute over w [N, D] and the judge's scores [N, A]; and (name, why not) for the rest."""
    whitening = Whitening.of(w)
    points = whitening.whiten(w)
    split = int(len(points) * (1 - held_out))
    boundaries, dropped = [], list(table.dropped)
    for column, name in enumerate(table.names):
        if not judged[column].auc >= MIN_JUDGE_AUC:
            dropped.append((name, f"the judge tells it apart too badly (AUC {judged[column].auc:.2f})"))
            continue
        score = scores[:, column]
        positive = score > (score.median() if table.continuous[column] else 0)
        rarer = int(min(positive.sum(), (~positive).sum()))
        if rarer < MIN_SIDE:
            dropped.append((name, f"only {rarer} of {len(score)} samples lie on one side of it"))
            continue
        normal = fit_normal(points[:split], score[:split])
        agreement = auc((points[split:] @ normal).numpy(), positive[split:].numpy())
        if not agreement >= MIN_BOUNDARY_AUC:
            dropped.append((name, f"no straight boundary in W separates it (AUC {agreement:.2f})"))
        else:
            boundaries.append(Boundary(column, normal, agreement, whitening))
    return boundaries, dropped


def search_attributes(generator: Generator, image_set: ImageSet, samples: int = 4000, seed: int = 0,
                      conditioned: bool = True, psi: float = 0.8, epochs: int = 16,
                      rename: dict[str, str] | None = None) -> Iterator[AttributeStep]:
    """Look for a direction for each label of `image_set`, step by step; the last step holds what was found.

    `samples` latents at truncation `psi` are judged; directions that do not move their own attribute are dropped and
    the matrix says so. `rename` maps label names to direction names. Raises DirectionError when the pictures carry no
    labels or do not fit the model.
    """
    table = read_attributes(image_set, rename)
    pixels = image_set.array()  # [N, R, R, C]
    if pixels.shape[3] != generator.img_channels:
        raise DirectionError(f"The labelled pictures have {pixels.shape[3]} channels, the model "
                             f"{generator.img_channels}; read them with the model's.")
    for epoch in train_judge(pixels, table, epochs=epochs, seed=seed):
        yield AttributeStep(0.35 * epoch.epoch / epoch.epochs, f"training the judge: {epoch.epoch}/{epoch.epochs}")
    judge = epoch.judge.to(generator.device)
    population = sample_w(generator, samples, seed)  # [N, D]
    latents = Latents.from_w(population, generator.num_ws).truncate(generator.w_avg.cpu(), psi)
    parts = []
    for start in range(0, samples, _BATCH):
        yield AttributeStep(0.35 + 0.25 * start / samples, f"judging samples: {start}/{samples}")
        parts.append(judge_latents(generator, judge, latents[start : start + _BATCH]))
    scores = torch.cat(parts)  # [N, A]
    probe = Probe(generator, judge, latents[:NUM_PROBES], scores.std(0).clamp(min=1e-6))
    boundaries, dropped = fit_boundaries(latents.ws[:, 0], scores, table, epoch.held_out)
    yield from _choose(probe, table, boundaries, dropped, population, epoch.held_out, conditioned)


def find_attributes(generator: Generator, image_set: ImageSet,
                    on_step: Callable[[AttributeStep], None] | None = None, **settings: Any) -> Found:
    """`search_attributes` to its end; `settings` are its own. Raises DirectionError when no direction works."""
    for step in search_attributes(generator, image_set, **settings):
        if on_step is not None:
            on_step(step)
    if not step.found.directions:
        name, reason = step.found.matrix.dropped[-1]
        raise DirectionError(f"No label moves this model's pictures ({name}: {reason}, for one); train the model "
                             "longer or give it other labels.")
    return step.found


def _conditioned(plain: Direction, boundary: Boundary, boundaries: list[Boundary], table: AttributeTable, probe: Probe,
                 population: Tensor) -> Direction:
    """The direction that leaves all other attributes alone, and rivals too where it would rather turn into one.

    Brown hair made darker is black hair: a rival that moves along at least half as much becomes a condition as well.
    """
    column = boundary.column

    def along(columns: list[int]) -> tuple[Direction, Tensor]:
        others = [other.normal for other in boundaries if other.column in columns]
        axis = boundary.axis(torch.stack(others) if others else None)
        direction = axis_direction(plain.name, axis, population, probe.latents.num_ws, plain.kind, plain.info)
        return direction, probe.effects(direction)

    def lead(effects: Tensor) -> float:
        return float(effects[column] - effects[table.rivals(column)].max())

    direction, effects = along(table.others(column))
    rivals = [c for c in table.rivals(column) if effects[c] > effects[column] / 2]
    if rivals:
        apart, moved = along(table.others(column) + rivals)
        if lead(moved) > lead(effects):
            return apart
    return direction


def _idle(low: Tensor, high: Tensor, column: int, probe: Probe, table: AttributeTable) -> str | None:
    """Why a direction with scores `low` and `high` [N, A] at its ends does not move its own attribute, or None."""
    effects = (high - low).mean(0) / probe.scale
    effect = float(effects[column])
    rival = next((c for c in table.rivals(column) if effects[c] > effect), None)
    if rival is not None:
        return f"moving along it turns pictures into {table.names[rival]} instead"
    if effect < MIN_EFFECT:
        return f"moving along it changes its own score by only {effect:.2f} standard deviations"
    share = float((high[:, column] > 0).float().mean() - (low[:, column] > 0).float().mean())
    if share < MIN_SHARE and not table.continuous[column]:
        return f"from one end to the other only {share:.0%} more of the pictures have it"
    return None


def _choose(probe: Probe, table: AttributeTable, boundaries: list[Boundary], dropped: list[tuple[str, str]],
            population: Tensor, judged: tuple[HeldOut, ...], conditioned: bool) -> Iterator[AttributeStep]:
    """Condition the boundaries, choose their layers, keep the directions that work and measure those."""
    kept, before, own = [], [], []
    quick = probe.fewer(NUM_PROBES_LAYERS)
    for index, boundary in enumerate(boundaries):
        name, column = table.names[boundary.column], boundary.column
        yield AttributeStep(0.6 + 0.35 * index / len(boundaries), f"measuring {name}")
        info = {"method": "linear boundary, arXiv 1907.10786", "samples": len(population), "conditioned": conditioned,
                "judge_auc": round(judged[column].auc, 4), "boundary_auc": round(boundary.auc, 4)}
        plain = axis_direction(name, boundary.axis(), population, probe.latents.num_ws, "attribute", info)
        final = _conditioned(plain, boundary, boundaries, table, quick, population) if conditioned else plain
        reason = _idle(*quick.ends(final), column, quick, table)
        if reason:
            dropped.append((name, reason))
            continue
        kept.append(narrow_layers(quick, final, column, table.others(column)))
        before.append(plain)
        own.append(column)
    yield AttributeStep(0.95, "measuring what each direction does to every attribute")
    matrix = measure(probe, table, kept, before, own, judged, dropped)
    kept = [replace(direction, info={**direction.info, "effects": noted(matrix.values[row], table.names)})
            for row, direction in enumerate(kept)]
    yield AttributeStep(1.0, f"{len(kept)} directions found", Found(kept, matrix, probe))
