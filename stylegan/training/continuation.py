"""Taking up training where something else stopped: exact states of this run, and networks of other runs and files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load as unpack
from safetensors.torch import save as pack

from stylegan.checkpoint.discriminators import convert_discriminator
from stylegan.checkpoint.file import load_generator
from stylegan.data.sampler import Sampler
from stylegan.errors import CheckpointError, TrainingError
from stylegan.training.growth import stage_of
from stylegan.training.state import newest_state, read_state, state_path, write_state

if TYPE_CHECKING:
    from stylegan.training.config import TrainConfig
    from stylegan.training.trainer import Trainer

_COUNTS = {"nimg": 0, "steps": 0, "seconds": 0.0, "nans": 0, "bad_steps": 0, "plan": 0.0, "frozen": 0}


def save(trainer: Trainer, path: Path) -> None:
    """Write all that an exact resume needs to one file, atomically."""
    write_state(path, *_state_of(trainer))


def even_out(trainer: Trainer) -> None:
    """Give every rank the first one's state, so that only that one's machine needs what it was read from."""
    ranks = trainer.ranks
    if ranks.world == 1:
        return
    tensors, numbers = _state_of(trainer) if ranks.is_first else ({}, {})
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    numbers = json.loads(ranks.share(json.dumps(numbers).encode()))
    data = ranks.share(pack(plain) if ranks.is_first else b"")
    if not ranks.is_first:
        _restore(trainer, unpack(data), numbers)


def _state_of(trainer: Trainer) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Everything that decides what the next steps do, as tensors and numbers by name."""
    tensors = {"pl_mean": trainer.pl_mean}
    for name, network in trainer.networks().items():
        tensors |= {f"{name}.{key}": value for key, value in network.state_dict().items()}
    for i, optimizer in enumerate(trainer.optimizers):
        for key, slot in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer{i}.{key}.{what}": torch.as_tensor(value) for what, value in slot.items()}
    numbers = {name: getattr(trainer, name) for name in _COUNTS}
    numbers |= {"p": trainer.augment.p, "signs": trainer.controller.signs, "count": trainer.controller.count}
    numbers["minutes"] = trainer.config.minutes
    return tensors, numbers | {"r_t": trainer.controller.r_t, "data": trainer.images.fingerprint()}


def load(trainer: Trainer, path: Path) -> None:
    """Return to exactly where `save` was; TrainingError when the file belongs to another run or is damaged."""
    tensors, numbers = read_state(path)
    if numbers["data"] != trainer.images.fingerprint():
        raise TrainingError("The training data has changed since this run was saved; restore it or start a new run.")
    _restore(trainer, tensors, numbers)
    if trainer.config.minutes != numbers.get("minutes", trainer.config.minutes):  # the plan was for another budget
        trainer.plan = trainer.nimg * trainer.config.minutes * 60 / max(trainer.seconds, 1e-9)


def _restore(trainer: Trainer, tensors: dict[str, torch.Tensor], numbers: dict[str, Any]) -> None:
    """Take over a state, and stand in the pictures where it stood."""
    _load_all(trainer, tensors, numbers)
    trainer.sampler = Sampler(len(trainer.images), trainer.config.seed, start=trainer.nimg)


def _load_all(trainer: Trainer, tensors: dict[str, torch.Tensor], numbers: dict[str, Any]) -> None:
    """Networks, optimisers and numbers of a state."""
    trainer.nimg = numbers["nimg"]
    trainer.grow()
    _load_networks(trainer, tensors)
    trainer.pl_mean = tensors["pl_mean"].to(trainer.device)
    for i, optimizer in enumerate(trainer.optimizers):
        parameters = optimizer.param_groups[0]["params"]
        slots: dict[int, dict[str, Any]] = {}
        for key, value in tensors.items():
            if key.startswith(f"optimizer{i}."):
                _, index, what = key.split(".")
                # Fused Adam walks memory in order, so the moments must lie as their (channels-last) weights do.
                layout = parameters[int(index)]
                value = value if value.ndim != layout.ndim else torch.empty_like(layout).copy_(value)
                slots.setdefault(int(index), {})[what] = value.detach()
        optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    for name, default in _COUNTS.items():
        setattr(trainer, name, numbers.get(name, default))
    trainer.augment.p = numbers["p"]
    trainer.controller.signs, trainer.controller.count = numbers["signs"], numbers["count"]
    trainer.controller.r_t = numbers["r_t"]


def _load_networks(trainer: Trainer, tensors: dict[str, torch.Tensor]) -> None:
    """Take all networks from a state file's tensors; TrainingError where they do not fit."""
    for name, network in trainer.networks().items():
        mine = {key[len(name) + 1 :]: value for key, value in tensors.items() if key.startswith(name + ".")}
        try:
            network.load_state_dict(mine)
        except RuntimeError as error:
            raise TrainingError("The saved networks do not fit this run's settings; use the same settings.") from error


def transfer(trainer: Trainer, source: Path) -> str:
    """Start from a run folder, a snapshot of a run, or a checkpoint; says in a sentence what was taken.

    A snapshot with a state of the same moment beside it is branched from: networks, averages, optimisers, augmentation
    and path length go on, only images seen, clock and data begin anew.
    """
    state = _state_beside(source)
    if state is None:
        sentence, judged = _transfer_generator(trainer, source)
        trainer.frozen = trainer.config.freeze_d if judged else 0
        return sentence
    tensors, numbers = read_state(state)
    if source.is_dir():
        _load_networks(trainer, tensors)
        sentence = f"Both networks continue from the run {source.name}"
    else:
        _load_all(trainer, tensors, numbers)
        trainer.nimg = trainer.steps = 0
        trainer.seconds, trainer.plan, trainer.nans, trainer.bad_steps = 0.0, 0.0, 0, 0
        trainer.augment.p = min(trainer.augment.p, trainer.config.ada_cap)
        kimg = numbers["nimg"] / 1000
        sentence = f"Everything continues from {source.parent.parent.name} at {kimg:.1f} kimg, optimisers included"
    trainer.frozen = trainer.config.freeze_d
    kept = f"; {trainer.frozen} block{'s' * (trainer.frozen > 1)} of the discriminator as they are."
    return sentence + (kept if trainer.frozen else ".")


def _state_beside(source: Path) -> Path | None:
    """The state that belongs to a run folder (its newest) or to a snapshot of a run (that of the same moment)."""
    if source.is_dir():
        return newest_state(source / "state")
    if source.parent.name != "snapshots" or not source.stem.isdigit():
        return None
    state = state_path(source.parent.parent / "state", int(source.stem))
    return state if state.is_file() else None


def _transfer_generator(trainer: Trainer, source: Path) -> tuple[str, bool]:
    """Take a checkpoint's generator; a sentence, and whether its discriminator came too."""
    known = load_generator(source).state_dict()
    networks = [trainer.generator, *(average.generator for average in trainer.averages)]
    own = trainer.generator.state_dict()
    fitting = {key: value for key, value in known.items() if key in own and own[key].shape == value.shape}
    if len(fitting) * 2 < len(own):
        raise TrainingError(
            f"{source.name} has too little in common with this run's networks; use its widths (info shows them)."
        )
    for network in networks:
        network.load_state_dict({**own, **fitting})
    judge = _transfer_discriminator(trainer, source)
    taken = f"{len(fitting)} of {len(own)} tensors continue from {source.name}; the discriminator {judge}"
    came = judge == "continues too"
    frozen = trainer.config.freeze_d
    return taken + (f", {frozen} of its blocks as they are." if came and frozen else "."), came


def _transfer_discriminator(trainer: Trainer, source: Path) -> str:
    """Take the discriminator of NVIDIA's snapshots where it fits ours; says what became of it."""
    if source.suffix != ".pkl":
        return "starts anew"
    try:
        _, known = convert_discriminator(source)
    except CheckpointError:
        return "starts anew"
    own = trainer.discriminator.state_dict()
    if {key: value.shape for key, value in known.items()} != {key: value.shape for key, value in own.items()}:
        return "starts anew, as its sizes differ"
    trainer.discriminator.load_state_dict(known)
    return "continues too"


def like_source(config: TrainConfig) -> TrainConfig:
    """The config with shapes left open filled in from the model that it is to be transferred from."""
    if not config.transfer:
        return config
    source = Path(config.transfer)
    if not source.exists():
        raise TrainingError(f"There is nothing at {source} to start from; give a checkpoint file or a run folder.")
    folder = source if source.is_dir() else source.parent.parent
    if source.is_dir() or _state_beside(source) is not None:
        from stylegan.training.run import TrainingRun

        recorded = TrainingRun(folder).config()
        config = _full_grown(config, recorded, newest_state(source / "state") if source.is_dir() else source)
        shape = {name: recorded[name] for name in ("family", "channel_base", "channel_max", "z_dim", "w_dim",
                                                   "mapping_layers", "conv_clamp") if recorded.get(name)}  # fmt: skip
    else:
        shape = _shape_of_checkpoint(source)
    return config.replace(**{name: value for name, value in shape.items() if config.is_open(name)})


def _full_grown(config: TrainConfig, recorded: dict[str, Any], moment: Path) -> TrainConfig:
    """The config of a run that goes on from a `moment` of one that grew: it begins with all pixels."""
    stage = stage_of(recorded, int(moment.stem))
    if not stage.is_last:
        raise TrainingError(f"At that moment the run was still growing ({stage.words(int(moment.stem))}); "
                            "choose a moment of its last resolution.")
    return config.replace(grow_kimg=0.0) if config.grow_kimg == recorded.get("grow_kimg") else config


def _shape_of_checkpoint(source: Path) -> dict[str, Any]:
    """The settings that make a generator of a checkpoint's sizes."""
    found = load_generator(source).config
    family = found.family
    if family == "stylegan3":
        family += "-r" if found.layers[0].kernel == 1 else "-t"
        widest = max(spec.out_channels for spec in found.layers)
        return {"family": family, "z_dim": found.z_dim, "w_dim": found.w_dim, "mapping_layers": found.mapping_layers,
                "channel_max": widest // (2 if family.endswith("r") else 1)}  # fmt: skip
    widths = [found.width(resolution) for resolution in found.block_resolutions]
    base = max(width * resolution for width, resolution in zip(widths, found.block_resolutions, strict=True))
    return {"family": family, "z_dim": found.z_dim, "w_dim": found.w_dim, "mapping_layers": found.mapping_layers,
            "channel_base": min(found.channel_base if not found.channels else base, 1 << 17),
            "channel_max": found.channel_max if not found.channels else math.ceil(max(widths))}  # fmt: skip
