"""All metrics of one generator: against pictures it never saw where there are any, beside what real pictures score."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from stylegan.data.images import ImageSet
from stylegan.errors import DataError
from stylegan.metrics.features import Extractor
from stylegan.metrics.frechet import frechet_distance
from stylegan.metrics.memorisation import Pairs
from stylegan.metrics.meter import Generate, Meter, Progress
from stylegan.metrics.path_length import perceptual_path_length
from stylegan.metrics.report import MetricReport
from stylegan.metrics.swd import swd
from stylegan.networks.generator import Generator
from stylegan.seeds import z_of_seeds

MAX_TRAIN = 20_000
_BATCH = 32


def evaluate(
    generator: Generator | Generate,
    train: ImageSet,
    held_out: ImageSet | None = None,
    num: int = 2000,
    seed: int = 0,
    psi: float = 1.0,
    *,
    extractor: Extractor | None = None,
    on_progress: Progress | None = None,
    on_pairs: Callable[[Pairs], None] | None = None,
) -> list[MetricReport]:
    """All that is measured of `num` pictures: what a Meter measures, KID first, and SWD last.

    `generator` is a network, sampled at seeds seed, seed + 1, ... with classes as frequent as in the set, or a
    function num -> batches of images [n, C, H, W] in [-1, 1]. An `extractor` from the user's own weights takes the
    place of the built-in one and adds FID and, for a network, PPL. `on_pairs` gets the closest copies.
    """
    generate = sampler_of(generator, train, seed, psi) if isinstance(generator, Generator) else generator
    meter = Meter(train, held_out, num, seed, extractor=extractor, max_train=MAX_TRAIN, on_progress=on_progress)
    reports = meter.measure(generate, on_progress=on_progress)
    if on_pairs is not None:
        on_pairs(meter.pairs)
    if extractor is not None:
        reports += [_frechet_report(meter)]
        if isinstance(generator, Generator):
            reports += [perceptual_path_length(generator, meter.extractor, min(num, 1000), seed)]
    _tell(on_progress, "comparing patches", 0, 2)
    reports.append(_swd_report(meter, seed))
    _tell(on_progress, "comparing patches", 2, 2)
    return reports


def sampler_of(generator: Generator, image_set: ImageSet | None = None, seed: int = 0, psi: float = 1.0) -> Generate:
    """The pictures a person sees: seeds from `seed` on, constant noise, psi; classes drawn as often as in the set."""

    def generate(num: int) -> Iterator[torch.Tensor]:
        labels = _draw_labels(generator, image_set, num, seed)
        for start in range(0, num, _BATCH):
            part = range(start, min(start + _BATCH, num))
            z = z_of_seeds([(seed + i) % 2**32 for i in part], generator.z_dim)
            latents = generator.map(z, None if labels is None else labels[part.start : part.stop])
            yield generator.synthesize(latents.truncate(generator.w_avg, psi))

    return generate


def _draw_labels(generator: Generator, image_set: ImageSet | None, num: int, seed: int) -> torch.Tensor | None:
    """Random classes int64 [num], as frequent as in the set; all alike when the set has none; None without classes."""
    if not generator.num_classes:
        return None
    shares = np.ones(generator.num_classes)
    if image_set is not None and image_set.labels is not None:
        if image_set.num_classes != generator.num_classes:
            raise DataError(
                f"The model has {generator.num_classes} classes and the pictures have {image_set.num_classes}; "
                "judge it against the set it was trained on."
            )
        shares = np.bincount(image_set.labels, minlength=generator.num_classes)
    drawn = np.random.RandomState(seed).choice(generator.num_classes, size=num, p=shares / shares.sum())
    return torch.from_numpy(drawn.astype(np.int64))


def _swd_report(meter: Meter, seed: int) -> MetricReport:
    """SWD over the pyramid against the reference; the floor puts training pictures in the place of the fakes."""
    real, stand_in = meter.reference_pixels(), meter.stand_in_pixels()
    num = min(len(real), len(meter.fakes), len(stand_in))
    levels = swd(real[:num], meter.fakes[:num], seed=seed)
    floor = swd(real[:num], stand_in[:num], seed=seed)
    details = {
        "levels": levels,
        "floor": float(np.mean(list(floor.values()))),
        "floor_levels": floor,
        "reference": meter.reference_name,
        "num_real": num,
        "seed": seed,
    }
    return MetricReport("SWD", float(np.mean(list(levels.values()))), 0.0, num, "laplacian-7x7", details)


def _frechet_report(meter: Meter) -> MetricReport:
    """FID of the fakes against the training pictures, as papers do; biased by the number of pictures, so it is told."""
    train, fake = meter.train_features, meter.fake_features
    half = len(train) // 2
    details = {
        "floor": frechet_distance(train[:half], train[half:]),
        "floor_num_images": half,
        "num_real": len(train),
        "reference": "train",
    }
    name = meter.extractor.name
    return MetricReport(f"FID-{name}", frechet_distance(train, fake), 0.0, len(fake), name, details)


def _tell(on_progress: Progress | None, what: str, done: int, total: int) -> None:
    """Tells how far a stage is, if anybody listens."""
    if on_progress is not None:
        on_progress(what, done, total)
