"""Do the metrics tell the truth? Real pictures, damaged more and more, must score worse and worse.

No single number sees all: KID of r64-v1 is nearly blind to faint noise, which SWD shows; fidelity says nothing of
missing kinds, which `kinds` shows (recall and coverage too, but they fall as far where pictures are merely soft);
replayed training pictures score best of all, and AuthPct flags them.
N pictures, R resolution, C channels.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageFilter

from stylegan.data.images import ImageSet
from stylegan.errors import DataError
from stylegan.metrics.features import Extractor, FeatureExtractor
from stylegan.metrics.kid import kid
from stylegan.metrics.kinds import kinds
from stylegan.metrics.manifold import density_coverage, distances, diversity, precision_recall
from stylegan.metrics.memorisation import nearest_other, neighbours
from stylegan.metrics.meter import Progress
from stylegan.metrics.swd import swd
from stylegan.pixels import from_pixels

Damage = Callable[[np.ndarray], np.ndarray]

NUM_MODES = 10
_LEAST = 32
_SWD_PICTURES, _SWD_PATCHES = 200, 8192


@dataclass(frozen=True)
class DamageScore:
    """What one damage of one level does to every metric; `level` in the damage's own unit."""

    damage: str
    level: float
    values: dict[str, float]


def validate(
    images: ImageSet,
    num: int = 1000,
    extractor: Extractor | None = None,
    seed: int = 0,
    *,
    on_progress: Progress | None = None,
) -> list[DamageScore]:
    """Scores of one half of the pictures, damaged, against the other half: none first, then each damage, growing.

    blur: deviation in pixels; noise: deviation in 8-bit steps; jpeg: quality; modes: of 10 kinds of picture, how many
    are left out; repeats: how often each picture is shown; replay: the reference half itself. At most `num` a half.
    """
    extractor = FeatureExtractor() if extractor is None else extractor
    first, second = images.split(0.5, seed)
    num = min(num, len(first), len(second))
    if num < _LEAST:
        raise DataError(f"Checking the metrics needs at least {2 * _LEAST} pictures, not {len(images)}; add some.")
    real, other = (part.batch(range(num)) for part in (first, second))
    real_features, other_features = (_features(extractor, pixels) for pixels in (real, other))
    kinds = _kinds(other_features, seed)
    rows: list[tuple[str, float, np.ndarray]] = [("none", 0.0, other)]
    rows += [("blur", level, _each(other, ImageFilter.GaussianBlur(level))) for level in (0.3, 0.6, 1.2, 2.4)]
    rows += [("noise", level, _noise(other, level, seed)) for level in (4, 8, 16, 32)]
    rows += [("jpeg", level, _jpeg(other, level)) for level in (90, 60, 30, 10)]
    rows += [("modes", level, other[np.resize(np.flatnonzero(kinds >= level), num)]) for level in (3, 6, 9)]
    rows += [("repeats", level, other[np.arange(num) // level * level]) for level in (2, 5, 20)]
    rows += [("replay", 1.0, real)]
    reach = nearest_other(real_features)
    scores = []
    for damage, level, fake in rows:
        values = _scores(extractor, real, real_features, fake, reach, seed)
        scores.append(DamageScore(damage, level, values))
        if on_progress is not None:
            on_progress("damages", len(scores), len(rows))
    return scores


def to_table(scores: list[DamageScore]) -> str:
    """The scores as aligned lines, one a damage and level."""
    names = list(scores[0].values)
    lines = [f"{'damage':<8} {'level':>5}" + "".join(f"{name:>11}" for name in names)]
    for score in scores:
        cells = "".join(f"{value:>11.4g}" for value in score.values.values())
        lines.append(f"{score.damage:<8} {score.level:>5g}{cells}")
    return "\n".join(lines)


def _scores(
    extractor: Extractor,
    real: np.ndarray,
    real_features: torch.Tensor,
    fake: np.ndarray,
    reach: torch.Tensor,
    seed: int,
) -> dict[str, float]:
    """Every metric of pixels `fake` against pixels `real`, both uint8 [N, R, R, C]."""
    features = _features(extractor, fake)
    precision, recall = precision_recall(real_features, features)
    density, coverage = density_coverage(real_features, features)
    real, fake = real[:_SWD_PICTURES], fake[:_SWD_PICTURES]
    levels = swd(real, fake, patches_per_image=_SWD_PATCHES // len(real), seed=seed)
    return {
        "KID": kid(real_features, features, seed=seed)[0],
        "SWD fine": levels[max(levels)],
        "precision": precision,
        "recall": recall,
        "kinds": kinds(real_features, features, seed),
        "density": density,
        "coverage": coverage,
        "diversity": diversity(real_features, features),
        "AuthPct": neighbours(real_features, features, reach).authentic,
    }


def _features(extractor: Extractor, pixels: np.ndarray) -> torch.Tensor:
    """Features of pixels uint8 [N, R, R, C], [N, D]."""
    return torch.cat([extractor(from_pixels(pixels[start : start + 128])) for start in range(0, len(pixels), 128)])


def _kinds(features: torch.Tensor, seed: int) -> np.ndarray:
    """Which of NUM_MODES kinds each picture is, [N]: that of the nearest of as many random pictures."""
    anchors = torch.from_numpy(np.random.RandomState(seed).permutation(len(features))[:NUM_MODES])
    return distances(features[anchors], features).argmin(0).numpy()


def _each(pixels: np.ndarray, filter: ImageFilter.Filter) -> np.ndarray:
    """Every picture through a filter of Pillow."""
    return np.stack([np.asarray(_picture(one).filter(filter)).reshape(one.shape) for one in pixels])


def _noise(pixels: np.ndarray, deviation: float, seed: int) -> np.ndarray:
    """White noise of a deviation in 8-bit steps, the same pattern at every level."""
    drawn = np.random.RandomState(seed).standard_normal(pixels.shape)
    return np.clip(np.round(pixels + deviation * drawn), 0, 255).astype(np.uint8)


def _jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Every picture once through JPEG, without its transparency."""
    found = pixels.copy()
    for one in found:
        buffer = io.BytesIO()
        _picture(one[..., :3]).save(buffer, "JPEG", quality=quality)
        one[..., :3] = np.asarray(Image.open(buffer)).reshape(one[..., :3].shape)
    return found


def _picture(pixels: np.ndarray) -> Image.Image:
    """One picture uint8 [R, R, C]."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
