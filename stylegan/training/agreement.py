"""What the processes of one run, perhaps on several machines, must agree on before the first step.

Every machine needs the pictures; the run folder is needed by one alone, which is then the first: it reads the state,
writes everything, and gives the others what they need through the network.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from stylegan.data.images import ImageSet
from stylegan.errors import TrainingError
from stylegan.training.config import TrainConfig
from stylegan.training.distributed import Ranks
from stylegan.training.state import states_newest_first

OF_A_MACHINE = ("data", "out", "transfer", "threads", "device", "tensorboard")  # may differ from process to process


def choose_first(ranks: Ranks, config: TrainConfig) -> Ranks:
    """The ranks, led by the one whose run folder holds the newest state, else by rank 0.

    TrainingError at every rank when one was started with other settings.
    """
    if ranks.world == 1:
        return ranks
    states = states_newest_first(Path(config.out) / "state")
    mine = {"nimg": int(states[0].stem) if states else -1, "host": socket.gethostname(), "settings": _shared(config)}
    said = [json.loads(text) for text in ranks.gather(json.dumps(mine))]
    first = max(range(ranks.world), key=lambda rank: (said[rank]["nimg"], -rank))
    for rank, one in enumerate(said):
        for name, value in said[first]["settings"].items():
            if one["settings"].get(name) != value:
                raise TrainingError(
                    f"Process {rank} of {ranks.world}, on {one['host']}, was started with {name} "
                    f"{one['settings'].get(name)} and process {first}, on {said[first]['host']}, with {value}; use the "
                    "same command on every machine."
                )
    return replace(ranks, first=first)


def settings_of_all(ranks: Ranks, config: TrainConfig, resolve: Callable[[], TrainConfig]) -> TrainConfig:
    """The first rank's resolved settings, with this machine's own paths and processors."""
    resolved = ranks.together(lambda: resolve() if ranks.is_first else config)
    if ranks.world == 1:
        return resolved
    known = TrainConfig.from_dict(json.loads(ranks.share(json.dumps(resolved.to_dict()).encode())))
    return resolved if ranks.is_first else known.replace(**{name: getattr(config, name) for name in OF_A_MACHINE})


def require_same_pictures(ranks: Ranks, data: ImageSet) -> None:
    """TrainingError at every rank when one of them reads other pictures than the first."""
    if ranks.world == 1:
        return
    said = [text.split("\0") for text in ranks.gather("\0".join((data.fingerprint(), str(len(data)),
                                                                  socket.gethostname())))]  # fmt: skip
    known, num, host = said[ranks.first]
    for rank, (fingerprint, mine, place) in enumerate(said):
        if fingerprint != known:
            raise TrainingError(
                f"Process {rank} of {ranks.world}, on {place}, reads other pictures ({mine}) than process "
                f"{ranks.first}, on {host} ({num}); copy the same data to every machine."
            )


def _shared(config: TrainConfig) -> dict:
    """What must be the same at every process."""
    return {name: value for name, value in config.to_dict().items() if name not in OF_A_MACHINE}
