"""TensorBoard logs for those who have it: the same numbers as the run's ticks and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stylegan.errors import TrainingError


class Board:
    """Writes scalars by images seen; TrainingError when TensorBoard is not installed."""

    def __init__(self, folder: Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise TrainingError("TensorBoard is not installed; pip install tensorboard, or leave it out.") from error
        self._writer = SummaryWriter(str(folder))

    def add(self, record: Mapping[str, Any]) -> None:
        """Every number of a tick."""
        for name, value in record.items():
            if isinstance(value, int | float) and name != "nimg":
                self._writer.add_scalar(name, value, record["nimg"])
        self._writer.flush()
