"""All metrics of one generator against one set of pictures, each with the score that real pictures get."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch

from stylegan.data.images import ImageSet
from stylegan.errors import DataError
from stylegan.metrics.kid import KidMeter
from stylegan.metrics.report import MetricReport
from stylegan.metrics.swd import swd
from stylegan.networks.generator import Generator
from stylegan.pixels import to_pixels
from stylegan.seeds import z_of_seeds

_BATCH = 32

Generate = Callable[[int], Iterable[torch.Tensor]]


def evaluate(
    generator: Generator | Generate,
    image_set: ImageSet,
    num: int = 2000,
    seed: int = 0,
    psi: float = 1.0,
) -> list[MetricReport]:
    """KID and SWD of `num` pictures against a set, the real-against-real floor in details["floor"].

    `generator` is a network, sampled at seeds seed, seed + 1, ... with classes as frequent as in the set, or a
    function num -> batches of images [n, C, H, W] in [-1, 1].
    """
    generate = sampler_of(generator, image_set, seed, psi) if isinstance(generator, Generator) else generator
    kept: list[np.ndarray] = []

    def keeping(wanted: int) -> Iterator[torch.Tensor]:
        for image in generate(wanted):
            kept.append(to_pixels(image))
            yield image

    real = image_set.array()
    first = KidMeter(real, num, seed).measure(keeping)
    return [first, _swd_report(real, np.concatenate(kept)[: first.num_images], seed)]


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


def _swd_report(real: np.ndarray, fake: np.ndarray, seed: int) -> MetricReport:
    """SWD over the pyramid; the floor compares two halves of the reals, so it is of fewer pictures."""
    rng = np.random.RandomState(seed)
    order = rng.permutation(len(real))
    levels = swd(real[order[: len(fake)]], fake, seed=seed)
    half = min(len(real) // 2, len(fake))
    floor = swd(real[order[:half]], real[order[half : 2 * half]], seed=seed)
    details = {
        "levels": levels,
        "floor": float(np.mean(list(floor.values()))),
        "floor_levels": floor,
        "floor_num_images": half,
        "seed": seed,
    }
    num = min(len(real), len(fake))
    return MetricReport("SWD", float(np.mean(list(levels.values()))), 0.0, num, "laplacian-7x7", details)
