"""What a measurement says, in one frozen value."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class MetricReport:
    """One measured number: lower is better for all metrics here.

    `name` holds the extractor's version; `spread` is the standard deviation over subsets (0: not known); `num_images`
    counts the judged fakes; `details` is JSON-able, with `floor` what real pictures score against real ones.
    """

    name: str
    value: float
    spread: float
    num_images: int
    extractor: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    def to_text(self) -> str:
        """One line for people."""
        text = f"{self.name:<12} {self.value:.5g}" + (f" +- {self.spread:.2g}" if self.spread else "")
        if "floor" in self.details:
            text += f"  (real against real {self.details['floor']:.2g})"
        levels = ", ".join(f"{side} px {value:.4g}" for side, value in self.details.get("levels", {}).items())
        return text + (f"  [{levels}]" if levels else "") + f"  {self.num_images:,} images"

    def to_json(self) -> str:
        """The same as JSON."""
        return json.dumps(asdict(self))
