"""A small judge of attributes, trained on labelled pictures, for finding labelled directions (arXiv 1907.10786 §4.1).

Shapes: N pictures, A attributes, C channels, S the side at which the judge looks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylegan.data.images import ImageSet
from stylegan.errors import DirectionError
from stylegan.pixels import from_pixels

BINARY, CONTINUOUS = "binary", "continuous"
LOGIT_LIMIT = 6.0  # beyond this a logit says no more than "sure"


@dataclass(frozen=True)
class AttributeTable:
    """What the labelled pictures say: values [N, A] (0/1, or standard scores; nan unknown) and each column's kind.

    Columns of the same non-empty group exclude each other (blond, ginger, ... hair).
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    groups: tuple[str, ...]
    values: Tensor
    dropped: tuple[tuple[str, str], ...] = ()

    @property
    def continuous(self) -> Tensor:
        """Which columns are regressed; bool [A]."""
        return torch.tensor([kind == CONTINUOUS for kind in self.kinds])

    def others(self, column: int) -> list[int]:
        """The columns that a direction for `column` should leave alone: all but itself and those that exclude it."""
        return [c for c in range(len(self.names)) if c != column and c not in self.rivals(column)]

    def rivals(self, column: int) -> list[int]:
        """The columns that exclude this one."""
        group = self.groups[column]
        return [c for c, other in enumerate(self.groups) if group and other == group and c != column]


@dataclass(frozen=True)
class HeldOut:
    """How well the judge names one attribute on pictures it never saw (continuous: against its median)."""

    name: str
    kind: str
    accuracy: float
    auc: float
    positives: int
    num_images: int


@dataclass(frozen=True)
class _Column:
    """One label of every picture, [N], before it is known to be of use."""

    name: str
    kind: str
    group: str
    values: np.ndarray


def read_attributes(image_set: ImageSet, rename: dict[str, str] | None = None, min_share: float = 0.03,
                    alike: float = 0.8) -> AttributeTable:
    """Columns to judge: one-of-many words (hair=blond is called blond-hair), classes, yes/no, then continuous ones.

    Left out, with the reason in `dropped`: attributes rarer than `min_share`, and those whose rank correlation with
    an earlier column exceeds `alike`. Raises DirectionError when nothing is left.
    """
    kept: list[_Column] = []
    dropped = []
    for column in _columns(image_set, rename or {}):
        reason = _unfit(column, min_share)
        if not reason:
            twin = next((other for other in kept if abs(_rank_correlation(column.values, other.values)) > alike), None)
            reason = f"says nearly the same as {twin.name}" if twin else None
        if reason:
            dropped.append((column.name, reason))
        else:
            kept.append(column)
    if not kept:
        raise DirectionError("These pictures carry no usable attributes; add a labels.json or classes to the data set.")
    values = np.stack([_standard(column) for column in kept], axis=1)
    return AttributeTable(tuple(column.name for column in kept), tuple(column.kind for column in kept),
                          tuple(column.group for column in kept), torch.from_numpy(values).float(), tuple(dropped))


def _columns(image_set: ImageSet, rename: dict[str, str]) -> list[_Column]:
    """Every label that the pictures carry; classes that only repeat a word attribute are passed over."""
    words, numbers = [], []
    for name, values in image_set.attributes.items():
        values = np.asarray(values, dtype=np.float64)
        yes_no = set(np.unique(values[~np.isnan(values)])) <= {0.0, 1.0}
        group, _, value = name.rpartition("=")
        shown = rename.get(name, f"{value}-{group}" if group else name)
        column = _Column(_plain(shown), BINARY if yes_no else CONTINUOUS, group if yes_no else "", values)
        (words if column.group else numbers).append(column)
    numbers.sort(key=lambda column: column.kind == CONTINUOUS)
    classes = []
    for index, name in enumerate(image_set.class_names if image_set.num_classes > 1 else ()):
        values = (np.asarray(image_set.labels) == index).astype(np.float64)
        if not any(np.array_equal(values, word.values) for word in words):
            classes.append(_Column(_plain(rename.get(name, name)), BINARY, "class", values))
    return words + classes + numbers


def _plain(name: str) -> str:
    """A label's name as a direction may be called: letters, digits, dots, '-' and '_'."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[:64] or "attribute"


def _standard(column: _Column) -> np.ndarray:
    """0/1 values as they are, continuous ones as standard scores."""
    if column.kind == BINARY:
        return column.values
    return (column.values - np.nanmean(column.values)) / np.nanstd(column.values)


def _unfit(column: _Column, min_share: float) -> str | None:
    """Why a column cannot be learned, or None."""
    known = column.values[~np.isnan(column.values)]
    if len(known) < 0.5 * len(column.values):
        return f"known for only {len(known)} of {len(column.values)} pictures"
    if column.kind == CONTINUOUS:
        return None if known.std() > 0 else "the same in every picture"
    rarer = int(min(known.sum(), len(known) - known.sum()))
    return None if rarer >= max(1, min_share * len(known)) else f"only {rarer} of {len(known)} pictures on one side"


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks 1..N, ties sharing their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation over the pictures where both are known."""
    both = ~np.isnan(first) & ~np.isnan(second)
    if both.sum() < 3 or np.ptp(first[both]) == 0 or np.ptp(second[both]) == 0:
        return 0.0
    return float(np.corrcoef(_ranks(first[both]), _ranks(second[both]))[0, 1])


def auc(scores: np.ndarray, positives: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative (ties half); nan without both."""
    num_positive, num_negative = int(positives.sum()), int((~positives).sum())
    if not num_positive or not num_negative:
        return math.nan
    rank_sum = _ranks(scores)[positives].sum()
    return float((rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative))


class Judge(nn.Module):
    """A strided convolution net with one output an attribute; it keeps positions, for the faces are aligned."""

    def __init__(self, num_attributes: int, channels: int, side: int, continuous: Tensor, seed: int = 0) -> None:
        super().__init__()
        self.side = side
        self.register_buffer("continuous", continuous.clone())
        layers, width, size = [], 24, side
        layers += [nn.Conv2d(channels, width, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        size //= 2
        while size > 4:
            wider = min(width * 2, 96)
            layers += [nn.Conv2d(width, wider, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(wider), nn.ReLU()]
            width, size = wider, size // 2
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(width * size * size, num_attributes)
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
        with torch.no_grad():
            self.head.weight.mul_(0.1)
            self.head.bias.zero_()

    def forward(self, image: Tensor) -> Tensor:
        """Raw outputs [N, A] (logits, or standard scores) for images in [-1, 1] at the judge's own side."""
        return self.head(self.trunk(image).flatten(1))

    @torch.no_grad()
    def score(self, image: Tensor) -> Tensor:
        """Scores [N, A] of images [N, C, H, W] of any size: logits within +-6, continuous ones in standard scores."""
        output = self(shrink(image.float().clamp(-1, 1), self.side))
        return torch.where(self.continuous, output, output.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)).cpu()


def shrink(image: Tensor, side: int) -> Tensor:
    """Images [N, C, H, W] averaged down (or repeated up) to side x side."""
    return image if image.shape[-2:] == (side, side) else F.interpolate(image, (side, side), mode="area")


def judge_side(resolution: int) -> int:
    """The side at which to judge pictures of this resolution: at most 64, a power of two, at least 8."""
    return 2 ** int(math.log2(min(max(resolution, 8), 64)))


@dataclass(frozen=True, eq=False)
class JudgeStep:
    """One epoch of the judge's training; the last one holds the judge and its held-out report."""

    epoch: int
    epochs: int
    loss: float
    judge: Judge | None = None
    held_out: tuple[HeldOut, ...] = ()


def train_judge(pixels: np.ndarray, table: AttributeTable, epochs: int = 16, batch: int = 32, lr: float = 2e-3,
                held_out: float = 0.2, seed: int = 0) -> Iterator[JudgeStep]:
    """Train a judge on pixels uint8 [N, R, R, C]; yields a step an epoch.

    Pictures are flipped, shifted by up to 2 pixels and now and then blurred, so that the judge takes a generator's
    softer pictures too. Raises DirectionError with fewer than 40 pictures.
    """
    if len(pixels) < 40:
        raise DirectionError(f"{len(pixels)} labelled pictures are too few to learn attributes from; give at least 40.")
    order = np.random.RandomState(seed).permutation(len(pixels))
    num_test = max(8, int(held_out * len(pixels)))
    test, train = torch.from_numpy(order[:num_test]), torch.from_numpy(order[num_test:])
    side = judge_side(pixels.shape[1])
    starts = range(0, len(pixels), 256)
    small = torch.cat([shrink(from_pixels(np.array(pixels[i : i + 256])), side) for i in starts])  # [N, C, S, S]
    judge = Judge(len(table.names), pixels.shape[3], side, table.continuous, seed)
    positive_weight = _positive_weight(table, train)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=lr, weight_decay=0.05)
    steps = epochs * math.ceil(len(train) / batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    for epoch in range(epochs):
        losses = []
        judge.train()
        for index in train[torch.randperm(len(train), generator=generator)].split(batch):
            output = judge(_vary(small[index], generator))
            loss = _loss(output, table.values[index], table.continuous, positive_weight)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        if epoch + 1 < epochs:
            yield JudgeStep(epoch + 1, epochs, float(np.mean(losses)))
    judge.eval().requires_grad_(False)
    scores = torch.cat([judge.score(part) for part in small[test].split(256)])
    yield JudgeStep(epochs, epochs, float(np.mean(losses)), judge, held_out_report(scores, table.values[test], table))


def _positive_weight(table: AttributeTable, train: Tensor) -> Tensor:
    """Weight [A] of the positives of each 0/1 column, the square root of negatives per positive, within 1/4 to 4."""
    share = table.values[train].nanmean(0).clamp(0.01, 0.99)
    weight = ((1 - share) / share).sqrt().clamp(0.25, 4)
    return torch.where(table.continuous, torch.ones_like(weight), weight)


def _vary(image: Tensor, generator: torch.Generator) -> Tensor:
    """A batch [N, C, S, S], half the pictures flipped, all shifted alike by up to 2 pixels, now and then blurred."""
    flip = torch.rand(len(image), generator=generator) < 0.5
    image = torch.where(flip[:, None, None, None], image.flip(3), image)
    side = image.shape[-1]
    reach = 2 if side >= 32 else 1
    down, right, blur = torch.randint(0, 2 * reach + 1, (3,), generator=generator).tolist()
    image = F.pad(image, (reach,) * 4, mode="replicate")[:, :, down : down + side, right : right + side]
    if blur % 2:
        image = F.avg_pool2d(F.pad(image, (1,) * 4, mode="replicate"), 3, stride=1)
    return image + 0.03 * torch.randn(image.shape, generator=generator)


def _loss(output: Tensor, target: Tensor, continuous: Tensor, positive_weight: Tensor) -> Tensor:
    """Mean over known labels of the logistic loss (0/1 columns) or half the squared error (continuous ones)."""
    known = ~torch.isnan(target)
    filled = target.nan_to_num()
    logistic = F.binary_cross_entropy_with_logits(
        output, filled.clamp(0, 1), pos_weight=positive_weight, reduction="none")
    loss = torch.where(continuous, (output - filled).square() / 2, logistic)
    return (loss * known).sum() / known.sum().clamp(min=1)


def held_out_report(scores: Tensor, values: Tensor, table: AttributeTable) -> tuple[HeldOut, ...]:
    """Accuracy and AUC of scores [N, A] against values [N, A]; continuous columns are cut at their median."""
    report = []
    for column, (name, kind) in enumerate(zip(table.names, table.kinds, strict=True)):
        known = ~torch.isnan(values[:, column])
        score, value = scores[known, column].numpy(), values[known, column].numpy()
        if kind == CONTINUOUS:
            middle = np.median(value)
            truth, guess = value > middle, score > middle
        else:
            truth, guess = value > 0.5, score > 0
        accuracy = float((truth == guess).mean()) if len(truth) else math.nan
        report.append(HeldOut(name, kind, accuracy, auc(score, truth), int(truth.sum()), len(truth)))
    return tuple(report)
