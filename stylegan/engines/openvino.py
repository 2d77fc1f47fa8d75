"""OpenVINO as an engine for one picture at a time on a processor: optional, one compiled model for each piece.

A piece compiles in about a tenth of a second, no slower than a compiled one is read from a disk (both measured), so
compiled models are not kept in files; what is kept is whether they were worth it (`stylegan.engines.choose`).

Letters: N batch (1), C channels, H height, W width.
"""

from __future__ import annotations

import importlib.metadata
import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from stylegan.engines.plain import PlainEngine
from stylegan.networks.pieces import Noise, PiecewiseSynthesis, State

if TYPE_CHECKING:
    from stylegan.engines.openvino_graphs import Knob
    from stylegan.engines.walk import Engine

log = logging.getLogger(__name__)


@cache
def version() -> str | None:
    """The installed OpenVINO's version, None when there is none; it is not loaded."""
    try:
        return importlib.metadata.version("openvino")
    except importlib.metadata.PackageNotFoundError:
        return None


@dataclass
class _Compiled:
    """A piece that is ready to run: the request that holds its tensors, and how to fill its inputs after the state."""

    request: Any
    knobs: list[Knob]
    output_shapes: list[tuple[int, ...]]
    has_x: bool


class OpenVinoEngine:
    """Runs some pieces of a network with OpenVINO, and all else (batches, pieces without a graph) with `plain`.

    `dtype` bfloat16 is for processors with AMX. `pieces` are the numbers of those to compile, all when not given;
    `compile` compiles them, one at a time, and must have been called before `run` makes a difference.
    """

    def __init__(self, synthesis: PiecewiseSynthesis, dtype: torch.dtype = torch.float32,
                 plain: Engine | None = None) -> None:
        self.name = f"openvino {str(dtype).removeprefix('torch.')}"
        self.plain = plain or PlainEngine(synthesis, dtype)
        self._pieces, self._dtype = synthesis.pieces(), dtype
        self._compiled: dict[int, _Compiled] = {}
        self._lock = threading.Lock()

    def compile(self, indices: Iterable[int] | None = None) -> list[int]:
        """Compile these pieces (all when not given); the numbers of those that can run now. Never raises."""
        for index in range(len(self._pieces)) if indices is None else indices:
            if index not in self._compiled:
                compiled = self._compile(index)
                if compiled is not None:
                    self._compiled[index] = compiled
        return sorted(self._compiled)

    def drop(self, indices: Iterable[int]) -> None:
        """Free the compiled models of some pieces; the plain engine runs them from now on."""
        for index in indices:
            self._compiled.pop(index, None)

    @torch.no_grad()
    def run(self, index: int, state: State, styles: list[torch.Tensor], noise: Noise) -> State:
        """The state after piece `index`; `styles` are the piece's own, [N, C] each. The last piece's has no x."""
        compiled = self._compiled.get(index)
        if compiled is not None and len(styles[0]) == 1:
            with self._lock:
                return self._infer(compiled, state, styles, noise)
        return self.plain.run(index, state, styles, noise)

    def _infer(self, compiled: _Compiled, state: State, styles: list[torch.Tensor], noise: Noise) -> State:
        """Fill the inputs, run, and hand out results that belong to the caller."""
        from openvino import Tensor

        inputs = [] if state.x is None else [state.x.float().permute(0, 2, 3, 1)]  # [1, H, W, C]
        inputs += [] if state.image is None else [state.image.float()]
        for knob in compiled.knobs:
            inputs += [value[:, :, None, None] for value in knob.values(styles[knob.style])]
            if knob.noise is not None:
                inputs.append(_noise_field(noise, knob.noise))
        inputs = [tensor.contiguous() for tensor in inputs]  # held here until the request has run
        results = [torch.empty(shape) for shape in compiled.output_shapes]
        for place, tensor in enumerate(inputs):
            compiled.request.set_input_tensor(place, Tensor(tensor.numpy(), shared_memory=True))
        for place, tensor in enumerate(results):
            compiled.request.set_output_tensor(place, Tensor(tensor.numpy(), shared_memory=True))
        compiled.request.infer()
        x = results.pop(0).permute(0, 3, 1, 2) if compiled.has_x else None  # [1, C, H, W], channels last
        return State(x, results.pop() if results else None)

    def _compile(self, index: int) -> _Compiled | None:
        """One piece as a compiled model; None when it has no graph or OpenVINO cannot compile it."""
        from stylegan.engines.openvino_graphs import build_graph

        is_bfloat = self._dtype == torch.bfloat16
        is_last = index == len(self._pieces) - 1
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                    "INFERENCE_PRECISION_HINT": "bf16" if is_bfloat else "f32"}  # fmt: skip
        try:
            # Transposed convolutions in bfloat16 run at a fifth of the rate of others (measured on AMX).
            graph, knobs = build_graph(self._pieces[index], is_last, packed=is_bfloat)
            model = _core().compile_model(graph, "CPU", settings)
        except Exception as error:  # whatever a foreign library raises: the plain engine is always there
            log.debug("OpenVINO has no %s: %s", self._pieces[index].name, error)
            return None
        shapes = [tuple(result.shape) for result in model.outputs]
        return _Compiled(model.create_infer_request(), knobs, shapes, not is_last)


def _noise_field(noise: Noise, layer: torch.nn.Module) -> torch.Tensor:
    """A layer's noise [1, 1, R, R] before the layer's own strength; zeros where there is none."""
    shape, field = (1, 1, *layer.noise_const.shape), noise.of(_Bare(layer), 1)
    return torch.zeros(shape) if field is None else field.reshape(shape)


class _Bare:
    """A layer's noise without its strength, which is in the graph."""

    def __init__(self, layer: torch.nn.Module) -> None:
        self.use_noise, self.noise_const, self.noise_strength = layer.use_noise, layer.noise_const, 1.0


@cache
def _core() -> Any:
    """The runtime, started when it is first needed."""
    from openvino import Core

    return Core()
