"""Judging a changing generator again and again against the same pictures, whose features are computed once.

N reference, T training and M fake pictures, R resolution, C channels, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch

from stylegan.data.images import ImageSet
from stylegan.errors import DataError
from stylegan.metrics.features import Extractor, FeatureExtractor
from stylegan.metrics.kid import kid
from stylegan.metrics.kinds import kinds
from stylegan.metrics.manifold import NUM_NEIGHBOURS, density_coverage, diversity, precision_recall
from stylegan.metrics.memorisation import Pairs, nearer_to_train, nearest_other, neighbours
from stylegan.metrics.report import MetricReport
from stylegan.pixels import from_pixels, to_pixels

Generate = Callable[[int], Iterable[torch.Tensor]]
Progress = Callable[[str, int, int], None]

LEAST_HELD_OUT = 32
LEAST_PICTURES = 8
MAX_REFERENCE = 5000
_BATCH = 128
_BETTER = {"KID": "lower", "diversity": "one", "precision": "higher", "recall": "higher", "kinds": "higher",
           "density": "one", "coverage": "higher"}  # fmt: skip


class Meter:
    """KID, diversity, AuthPct, precision, recall, kinds, density and coverage of `num` fakes, cheap enough to stream.

    The reference is the held-out set when it has at least 32 pictures; else the training set, which is then also its
    own floor, by halves. Every measurement uses the same pictures, so two values differ only by the fakes. At most
    `max_train` training pictures take part.
    """

    def __init__(
        self,
        train: ImageSet,
        held_out: ImageSet | None = None,
        num: int = 500,
        seed: int = 0,
        device: str | torch.device = "cpu",
        *,
        extractor: Extractor | None = None,
        max_train: int = 4000,
        on_progress: Progress | None = None,
    ) -> None:
        if len(train) < LEAST_PICTURES:
            raise DataError(f"Judging needs at least {LEAST_PICTURES} training pictures, not {len(train)}; add some.")
        self.extractor = FeatureExtractor(device) if extractor is None else extractor
        self.num, self.seed = max(num, 4), seed
        self._train, self._held_out = train, held_out
        self._train_index = self._draw(len(train), max_train)
        self._train_ways = self._read(train, self._train_index, "training pictures", on_progress)
        self.train_features = self._train_ways[:, 0]
        self.held_features: torch.Tensor | None = None
        self._held_index = np.empty(0, dtype=np.int64)
        if held_out is not None and len(held_out) >= LEAST_HELD_OUT:
            self._held_index = self._draw(len(held_out), MAX_REFERENCE)
            self._held_ways = self._read(held_out, self._held_index, "held-out pictures", on_progress)
            self.held_features = self._held_ways[:, 0]
        self.reference_name = "train" if self.held_features is None else "held-out"
        self._reach = nearest_other(self._train_ways)
        self._floors = self._measure_floors()
        self.fakes = np.empty((0, train.resolution, train.resolution, train.img_channels), np.uint8)
        self._fake_ways = torch.empty(0, 2, self.train_features.shape[1])

    def measure(self, generate: Generate, *, on_progress: Progress | None = None) -> list[MetricReport]:
        """Judges the images [n, C, H, W] in [-1, 1] of `generate(num)`, as 8-bit pictures show them.

        Eight reports, KID first; DataError when there are fewer than 4 pictures or they are not numbers.
        """
        self._collect(generate, on_progress)
        reference, train, fake = self._reference(), self.train_features, self.fake_features
        values = _compare(reference, fake[: len(train)], self.seed)
        against_train = {} if self.held_features is None else _compare(train[: len(reference)], fake, self.seed)
        about = {"reference": self.reference_name, "num_real": len(reference), "seed": self.seed}
        reports = []
        for name, (value, spread) in values.items():
            details = about | {"floor": self._floors[name][0], "floor_spread": self._floors[name][1]}
            if name in against_train:
                details["train"] = against_train[name][0]
            if name in ("precision", "recall", "density", "coverage"):
                details["num_neighbours"] = NUM_NEIGHBOURS
            reports.append(self._report(name, value, spread, details, _BETTER[name]))
        return [*reports[:2], self._authenticity(), *reports[2:]]

    @property
    def fake_features(self) -> torch.Tensor:
        """Features of the last fakes, [M, D]."""
        return self._fake_ways[:, 0]

    @property
    def pairs(self) -> Pairs:
        """The 16 fakes of the last measurement that are closest to a training picture, for that picture's own reach."""
        found = neighbours(self._train_ways, self._fake_ways, self._reach)
        order = found.ratio.argsort(stable=True)[:16].tolist()
        places = [int(self._train_index[found.index[i]]) for i in order]
        return Pairs(
            fakes=self.fakes[order],
            nearest=self._train.batch(places),
            indices=tuple(order),
            names=tuple(self._train.names[i] for i in places),
            ratios=tuple(found.ratio[i].item() for i in order),
        )

    def reference_pixels(self) -> np.ndarray:
        """The pictures judged against, uint8 [N, R, R, C]; half of the training set when nothing is held out."""
        if self.held_features is not None:
            return self._held_out.batch(np.sort(self._held_index))
        return self._train.batch(np.sort(self._train_index[::2]))

    def stand_in_pixels(self) -> np.ndarray:
        """Training pictures that the reference does not hold, uint8 [n, R, R, C]: what the floors are measured with."""
        chosen = self._train_index if self.held_features is not None else self._train_index[1::2]
        return self._train.batch(np.sort(chosen[: MAX_REFERENCE]))

    def _draw(self, num: int, most: int) -> np.ndarray:
        """A random order of a set's pictures, the first `most` of them."""
        return np.random.RandomState(self.seed).permutation(num)[:most]

    def _read(self, images: ImageSet, indices: np.ndarray, what: str, on_progress: Progress | None) -> torch.Tensor:
        """Features of some pictures and their mirror images in the order of `indices`, [n, 2, D]."""
        found = []
        for start in range(0, len(indices), _BATCH):
            found.append(self._both_ways(images.batch(indices[start : start + _BATCH])))
            if on_progress is not None:
                on_progress(what, min(start + _BATCH, len(indices)), len(indices))
        return torch.cat(found)

    def _both_ways(self, pixels: np.ndarray) -> torch.Tensor:
        """Features of pixels uint8 [n, R, R, C] and of their mirror images, [n, 2, D]."""
        image = from_pixels(pixels)
        return torch.stack([self.extractor(image), self.extractor(image.flip(3))], dim=1)

    def _reference(self) -> torch.Tensor:
        """Features [N, D] that fakes are compared with."""
        return self.train_features[:MAX_REFERENCE] if self.held_features is None else self.held_features

    def _collect(self, generate: Generate, on_progress: Progress | None) -> None:
        """Keeps the pixels and features of `num` fakes."""
        pixels: list[np.ndarray] = []
        features: list[torch.Tensor] = []
        done = 0
        for image in generate(self.num):
            if not torch.isfinite(image).all():
                raise DataError("The generator makes pictures that are not numbers, so they cannot be judged.")
            pixels.append(to_pixels(image))
            features.append(self._both_ways(pixels[-1]))
            done += len(image)
            if on_progress is not None:
                on_progress("fakes", min(done, self.num), self.num)
            if done >= self.num:
                break
        if done < 4:
            raise DataError(f"Judging needs at least 4 generated pictures, not {done}; ask for more.")
        self.fakes = np.concatenate(pixels)[: self.num]
        self._fake_ways = torch.cat(features)[: self.num]

    def _measure_floors(self) -> dict[str, tuple[float, float]]:
        """What training pictures score in the place of as many fakes; by halves when nothing is held out."""
        train = self.train_features
        if self.held_features is not None:
            return _compare(self.held_features, train[: self.num], self.seed)
        half = len(train) // 2
        return _compare(train[:half], train[half:], self.seed)

    def _authenticity(self) -> MetricReport:
        """AuthPct, mirrored copies counted, with its distances beside those of pictures that nobody learned from."""
        train, fake = self._train_ways, self._fake_ways
        found = neighbours(train, fake, self._reach)
        details: dict[str, object] = {
            "copies": 100 - found.authentic,
            "num_train": len(train),
            "num_train_of": len(self._train),
            "median_distance": found.distance.median().item(),
            "median_ratio": found.ratio.median().item(),
            "least_ratio": found.ratio.min().item(),
        }
        if self.held_features is not None:
            held = self._held_ways
            unseen = neighbours(train, held, self._reach)
            details["floor"] = unseen.authentic
            details["held_out_median_distance"] = unseen.distance.median().item()
            details["nearer_to_train"] = nearer_to_train(train, held, fake, self.seed)
        share = found.authentic / 100
        return self._report("AuthPct", found.authentic, 100 * _binomial(share, len(fake)), details, "higher")

    def _report(self, name: str, value: float, spread: float, details: dict, better: str) -> MetricReport:
        """One report, named after the extractor too."""
        extractor = self.extractor.name
        return MetricReport(f"{name}-{extractor}", value, spread, len(self.fakes), extractor, details, better)


def _compare(real: torch.Tensor, fake: torch.Tensor, seed: int) -> dict[str, tuple[float, float]]:
    """Value and standard deviation of every metric of two sets of features [N, D] and [M, D]."""
    precision, recall = precision_recall(real, fake)
    density, coverage = density_coverage(real, fake)
    return {
        "KID": kid(real, fake, seed=seed),
        "diversity": (diversity(real, fake), 0.0),
        "precision": (precision, _binomial(precision, len(fake))),
        "recall": (recall, _binomial(recall, len(real))),
        "kinds": (kinds(real, fake, seed), 0.0),
        "density": (density, 0.0),
        "coverage": (coverage, _binomial(coverage, len(real))),
    }


def _binomial(share: float, num: int) -> float:
    """Standard deviation of a share found in `num` draws."""
    return (share * (1 - share) / num) ** 0.5
