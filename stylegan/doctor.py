"""What the start says about speed: where pictures are drawn, with what, how long one takes, what would be quicker."""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import torch

from stylegan.device import autocast_dtype, describe_device
from stylegan.engines import openvino
from stylegan.engines.choose import ChosenEngine
from stylegan.models import LoadedModel
from stylegan.render import Renderer
from stylegan.request import RenderRequest

FLUENT_MS = 100.0  # up to here a picture follows a hand
PATIENCE_MS = 2000.0  # a picture slower than that is timed only once
UNUSED_SEED = 1_000_003  # the first of two that nobody has drawn, so that nothing of them is known yet
MAX_KNOWN = 64
_drawn: OrderedDict[tuple[str, str], float] = OrderedDict()


@dataclass(frozen=True)
class Diagnosis:
    """`line`: device, engine, precision and the milliseconds of a picture, in a sentence; `advice`: what would make
    it quicker, a sentence each, the best first, and nothing when nothing is wrong."""

    line: str
    advice: tuple[str, ...] = ()


def diagnose(renderer: Renderer, model_name: str) -> Diagnosis:
    """How quickly a model is drawn here; draws one or two pictures when that is not known yet.

    Raises CheckpointError or RequestError when there is no such model or it cannot be opened.
    """
    model = renderer.model(model_name)
    ms = _expected_ms(renderer, model)
    size, device = model.generator.resolution, renderer.device
    time = f"takes about {ms:.0f} ms a picture with {model.quick.name}"
    line = f"{describe_device(device)}: {model.name} ({size} px) {time}."
    return Diagnosis(line, tuple(_advice(device, model, ms)))


def _expected_ms(renderer: Renderer, model: LoadedModel) -> float:
    """What a picture of the model takes with the engine that draws what moves, as was measured, or is measured now."""
    chosen = model.quick.expected_ms if isinstance(model.quick, ChosenEngine) else None
    last = len(model.generator.synthesis.pieces()) - 1
    seconds = None if chosen is not None else model.pace.expected(model.quick.name, 0, last)
    if chosen is not None or seconds is not None:
        return chosen if chosen is not None else 1000 * seconds
    key = (model.hash, str(renderer.device))
    if key not in _drawn:
        for seed in (UNUSED_SEED, UNUSED_SEED + 1):  # the first one lays the weights out
            _drawn[key] = 1000 * renderer.render(RenderRequest(model=model.name, seed=seed)).seconds
            if _drawn[key] > PATIENCE_MS:
                break
    while len(_drawn) > MAX_KNOWN:
        _drawn.popitem(last=False)
    return _drawn[key]


def _advice(device: torch.device, model: LoadedModel, ms: float) -> list[str]:
    """What would make pictures quicker, the best first."""
    found = []
    if device.type == "cpu" and torch.cuda.is_available():
        found.append("There is a GPU: start with --device cuda.")
    elif device.type == "cpu" and Path("/proc/driver/nvidia/version").exists():
        found.append("There is a GPU, but this PyTorch cannot use it: install a PyTorch with CUDA.")
    if device.type != "cpu":
        return found
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    if threads < cores:
        found.append(f"Only {threads} of {cores} cores are used: unset OMP_NUM_THREADS.")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > cores + 1:
        found.append(f"Other programs keep the processor busy: the load is {load:.1f} on {cores} cores.")
    if os.environ.get("STYLEGAN_KEEP_MALLOC") == "1":
        found.append("Memory is given back after every layer, which can double the time: unset STYLEGAN_KEEP_MALLOC.")
    if openvino.version() is None:
        found.append("OpenVINO is not installed: after 'pip install openvino' it is used where it is quicker.")
    if ms > FLUENT_MS:
        slow = autocast_dtype(device) == torch.float32
        found.append("A GPU" + (", or a processor with AMX," if slow else "") + " would be several times as fast"
                     + _preview(model) + ".")  # fmt: skip
    return found


def _preview(model: LoadedModel) -> str:
    """What helps until then, as the end of a sentence."""
    pieces = model.generator.synthesis.pieces()
    if any(piece.has_image for piece in pieces[:-1]):
        return "; until then smaller previews follow the hand, and the whole picture comes when it rests"
    return "; a model with fewer pixels is quicker, too"
