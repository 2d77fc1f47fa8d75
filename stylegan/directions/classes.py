"""Directions from a conditional model's own classes: each class's mean w against the mean of the others."""

from __future__ import annotations

import numpy as np
import torch

from stylegan.directions.population import axis_direction, map_w
from stylegan.errors import DirectionError
from stylegan.latents import Direction
from stylegan.networks.generator import Generator


@torch.no_grad()
def find_classes(generator: Generator, class_names: tuple[str, ...] = (), samples: int = 4_000,
                 seed: int = 0) -> list[Direction]:
    """One direction a class (two classes: one direction), from the same z mapped with every class.

    Names are `class_names` or class0, class1, ...; strength 1 is one standard deviation of the mixed population.
    Raises DirectionError for a model without classes.
    """
    num_classes = generator.num_classes
    if num_classes < 2:
        raise DirectionError("This model has no classes; give labelled pictures with --data instead.")
    each = max(64, samples // num_classes)
    z = np.random.RandomState(seed).randn(each, generator.z_dim).astype(np.float32)  # [n, Z]
    w = torch.stack([map_w(generator, z, np.full(each, label)) for label in range(num_classes)])  # [K, n, D]
    means, population = w.double().mean(1), w.flatten(0, 1)
    directions = []
    for label in range(num_classes if num_classes > 2 else 1):
        others = (means.sum(0) - means[label]) / (num_classes - 1)
        name = class_names[label] if label < len(class_names) else f"class{label}"
        info = {"method": "difference of class means", "class": label, "samples": len(population), "seed": seed}
        directions.append(
            axis_direction(name, means[label] - others, population, generator.num_ws, "attribute", info))
    return directions
