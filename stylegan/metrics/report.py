"""What a measurement says, in one frozen value."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class MetricReport:
    """One measured number.

    `name` holds the extractor's version; `spread` is its standard deviation (0: not known); `num_images` counts the
    judged fakes; `better` says which way is up: "lower", "higher", or "one" where real pictures score 1. `details` is
    JSON-able, with `floor` what real training pictures score in the place of the fakes.
    """

    name: str
    value: float
    spread: float
    num_images: int
    extractor: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    better: str = "lower"

    def to_text(self) -> str:
        """One line for people."""
        text = f"{self.name:<18} {self.value:.5g}" + (f" +- {self.spread:.2g}" if self.spread else "")
        if "floor" in self.details:
            text += f"  (real against real {self.details['floor']:.3g})"
        if "train" in self.details:
            text += f"  (against the training set {self.details['train']:.3g})"
        levels = ", ".join(f"{side} px {value:.4g}" for side, value in self.details.get("levels", {}).items())
        return text + (f"  [{levels}]" if levels else "") + f"  {self.num_images:,} images"

    def to_json(self) -> str:
        """The same as JSON."""
        return json.dumps(asdict(self))
