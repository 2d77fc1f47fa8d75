"""What directions do to attributes, measured with a judge, and the layers where they do it.

Shapes: N latents, L layers, D w_dim, A attributes, K directions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stylegan.directions.classifier import BINARY, AttributeTable, HeldOut, Judge
from stylegan.latents import Direction, Latents
from stylegan.networks.generator import Generator

_BATCH = 16  # a processor's caches like small batches


@torch.no_grad()
def judge_latents(generator: Generator, judge: Judge, latents: Latents) -> Tensor:
    """The judge's scores [N, A] of the pictures of these latents."""
    starts = range(0, len(latents), _BATCH)
    return torch.cat([judge.score(generator.synthesize(latents[start : start + _BATCH])) for start in starts])


@dataclass(frozen=True)
class Probe:
    """Measures directions on the same latents; `scale` [A] is the standard deviation of each score over the population.

    An effect is the mean score at +strength less the mean score at -strength, in those standard deviations.
    """

    generator: Generator
    judge: Judge
    latents: Latents
    scale: Tensor
    strength: float = 2.0

    def ends(self, direction: Direction, layers: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        """Scores [N, A] at -strength and at +strength."""
        low, high = (
            judge_latents(self.generator, self.judge, self.latents.move(direction, sign * self.strength, layers))
            for sign in (-1, 1)
        )
        return low, high

    def effects(self, direction: Direction, layers: tuple[int, int] | None = None) -> Tensor:
        """The effect on every attribute, [A], on the direction's own layers or on `layers`."""
        low, high = self.ends(direction, layers)
        return (high - low).mean(0) / self.scale

    def fewer(self, num: int) -> Probe:
        """The same measure on the first `num` latents only."""
        return replace(self, latents=self.latents[:num])


def narrow_layers(probe: Probe, direction: Direction, attribute: int, others: list[int], keep: float = 0.85,
                  slack: float = 0.03) -> Direction:
    """The direction on a short run of layers that keeps `keep` (0 to 1) of its effect on its own attribute.

    A run is taken only if its mean effect on `others`, relative to the own one, is at most `slack` above the whole
    direction's: conditioning balances layers against each other, and a part of them may be out of balance. First the
    coarse end is given up as far as half of the loss allows, then the fine end, each by bisection.
    """
    first, last = direction.layers
    whole = probe.effects(direction)

    def leak(effects: Tensor) -> float:
        return float(effects[others].abs().sum() / max(1, len(others)) / effects[attribute].abs().clamp(min=1e-6))

    def keeps(layers: tuple[int, int], share: float) -> bool:
        effects = probe.effects(direction, layers)
        return bool(effects[attribute] >= share * whole[attribute]) and leak(effects) <= leak(whole) + slack

    high = last
    while first < high:
        middle = (first + high + 1) // 2
        if keeps((middle, last), (1 + keep) / 2):
            first = middle
        else:
            high = middle - 1
    low = first
    while low < last:
        middle = (low + last) // 2
        if keeps((first, middle), keep):
            last = middle
        else:
            low = middle + 1
    return replace(direction, layers=(first, last))


def noted(effects: Tensor, attributes: tuple[str, ...], least: float = 0.3, most: int = 3) -> dict[str, float]:
    """The up to `most` attributes that a direction moves by at least `least` standard deviations, strongest first."""
    order = effects.abs().argsort(descending=True).tolist()[:most]
    return {attributes[c]: round(float(effects[c]), 2) for c in order if abs(float(effects[c])) >= least}


@dataclass(frozen=True, eq=False)
class EffectMatrix:
    """The measured effect of K directions on A attributes, values [K, A] in standard deviations of each score.

    `own` [K] is the column each direction is meant to move; `before` the values before conditioning and layer choice;
    `flips` (share of yes at -strength, at +strength) or None for continuous attributes; `others` [K] the columns
    each should leave alone; `judged` and `dropped` tell how far the judge can be trusted and what was given up and why.
    """

    names: tuple[str, ...]
    attributes: tuple[str, ...]
    values: Tensor
    before: Tensor
    own: tuple[int, ...]
    others: tuple[list[int], ...]
    flips: tuple[tuple[float, float] | None, ...]
    layers: tuple[tuple[int, int], ...]
    strength: float = 2.0
    judged: tuple[HeldOut, ...] = ()
    dropped: tuple[tuple[str, str], ...] = ()

    def leak(self, values: Tensor | None = None) -> float:
        """Mean |effect| on other attributes over the effect on the own one; only those it should leave alone."""
        values = self.values if values is None else values
        ratios = []
        for row, own in enumerate(self.own):
            others = self.others[row]
            if others:
                ratios.append(float(values[row, others].abs().mean() / values[row, own].abs().clamp(min=1e-6)))
        return sum(ratios) / len(ratios) if ratios else 0.0

    def to_markdown(self) -> str:
        """The report as Markdown: the matrix after and before, the judge's held-out figures, what was dropped."""
        span = f"-{self.strength:g} to +{self.strength:g}"
        lines = [
            f"Effect of moving along a direction from {span} standard deviations, in standard deviations of each "
            "attribute's score (the own one in bold); then the share of pictures judged to have it at either end.",
            "", *self._table(self.values, True), "",
            f"Side effects relative to the own effect: {self.leak(self.before):.2f} before conditioning and layer "
            f"choice, {self.leak():.2f} after. Before:", "", *self._table(self.before, False), "",
            "The judge, a small convolution net, on labelled pictures it never saw (continuous attributes cut at their "
            "median):", "", *_row(["attribute", "accuracy", "AUC", "pictures"], True),
        ]
        for grade in self.judged:
            lines += _row([grade.name, f"{grade.accuracy:.1%}", f"{grade.auc:.3f}", str(grade.num_images)])
        if self.dropped:
            lines += ["", "Given up:", "", *(f"- {name}: {reason}" for name, reason in self.dropped)]
        return "\n".join(lines) + "\n"

    def _table(self, values: Tensor, after: bool) -> list[str]:
        """One Markdown table of effects; with shares and layers when it shows the final directions."""
        lines = _row(["direction", *self.attributes, *(["has it", "layers"] if after else [])], True)
        for row, name in enumerate(self.names):
            cells = [f"{value:+.2f}" for value in values[row].tolist()]
            cells[self.own[row]] = f"**{cells[self.own[row]]}**"
            if after:
                flip = self.flips[row]
                first, last = self.layers[row]
                cells += [f"{flip[0]:.0%} → {flip[1]:.0%}" if flip else "", f"{first}-{last}"]
            lines += _row([name, *cells])
        return lines


def _row(cells: list[str], head: bool = False) -> list[str]:
    """One Markdown table row; a head row brings its rule."""
    lines = ["| " + " | ".join(cells) + " |"]
    return lines + ["|" + "---|" * len(cells)] if head else lines


def measure(probe: Probe, table: AttributeTable, directions: list[Direction], before: list[Direction],
            own: list[int], judged: tuple[HeldOut, ...], dropped: list[tuple[str, str]]) -> EffectMatrix:
    """The matrix of `directions`, and of the same ones `before` conditioning, on all attributes of the table."""
    rows, flips = [], []
    for direction, column in zip(directions, own, strict=True):
        low, high = probe.ends(direction)
        rows.append((high - low).mean(0) / probe.scale)
        shares = float((low[:, column] > 0).float().mean()), float((high[:, column] > 0).float().mean())
        flips.append(shares if table.kinds[column] == BINARY else None)
    size = (len(directions), len(table.names))
    return EffectMatrix(
        names=tuple(direction.name for direction in directions),
        attributes=table.names,
        values=torch.stack(rows) if rows else torch.zeros(size),
        before=torch.stack([probe.effects(direction) for direction in before]) if before else torch.zeros(size),
        own=tuple(own),
        others=tuple(table.others(column) for column in own),
        flips=tuple(flips),
        layers=tuple(direction.layers for direction in directions),
        strength=probe.strength,
        judged=judged,
        dropped=tuple(dropped),
    )
