"""PyTorch on a GPU for one picture at a time: half precision as in the papers, channels-last, pieces as CUDA graphs.

A piece launches dozens of small kernels, and at batch 1 starting them takes longer than running them; a graph starts
them all at once. Nothing here touches CUDA before a piece runs.

Letters: N batch (1), C channels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from stylegan.networks.pieces import Noise, PiecewiseSynthesis, State

HALF_PIECES = 16  # float16 has the range for resolutions of at least a sixteenth of the picture's (arXiv 2006.06676)

Tensors = tuple[torch.Tensor, ...]
Replay = Callable[[Tensors], Tensors]


class GpuEngine:
    """Runs the pieces of a synthesis network on a GPU in `dtype`; `record` makes a function of tensors replayable.

    Random noise, other strengths than 1 and batches run without a graph; so does everything once recording has failed.
    """

    def __init__(
        self, synthesis: PiecewiseSynthesis, dtype: torch.dtype,
        record: Callable[[Callable[..., Tensors], Tensors], Replay] | None = None,
    ) -> None:  # fmt: skip
        self.name = f"torch {str(dtype).removeprefix('torch.')} on a GPU"
        self._pieces, self._dtype, self._record = synthesis.pieces(), dtype, record or record_graph
        self._graphs: dict[tuple, Replay | None] = {}

    @torch.no_grad()
    def run(self, index: int, state: State, styles: list[torch.Tensor], noise: Noise) -> State:
        """The state after piece `index`; `styles` are the piece's own, [N, C] each."""
        steady = noise.mode == "none" or (noise.mode == "const" and noise.strength in (0.0, 1.0))
        if len(styles[0]) > 1 or not steady:
            return self._plain(index, state, styles, noise)
        given = (*(part for part in state if part is not None), *styles)
        key = (index, noise.mode, noise.strength, state.x is None, state.image is None)
        has = state.x is not None, state.image is not None

        def piece(*tensors: torch.Tensor) -> Tensors:
            rest = list(tensors)
            before = State(*(rest.pop(0) if there else None for there in has))
            return tuple(part for part in self._plain(index, before, rest, noise) if part is not None)

        if key not in self._graphs:
            try:
                self._graphs[key] = self._record(piece, given)
            except RuntimeError:  # what cannot be recorded runs as it is
                self._graphs[key] = None
        replay = self._graphs[key]
        made = (piece if replay is None else lambda *tensors: replay(tensors))(*given)
        return State(*made) if len(made) == 2 else State(made[0], None)

    def _plain(self, index: int, state: State, styles: list[torch.Tensor], noise: Noise) -> State:
        """One piece kernel by kernel; float16 only where its range suffices."""
        piece, dtype = self._pieces[index], self._dtype
        if dtype == torch.float16 and piece.resolution * HALF_PIECES <= self._pieces[-1].resolution:
            dtype = torch.float32
        x = state.x if state.x is None or state.x.ndim != 4 else state.x.to(memory_format=torch.channels_last)
        return piece(State(x, state.image), styles, noise, dtype)


def gpu_dtype(has_bfloat16: bool) -> torch.dtype:
    """bfloat16 where a GPU has it, else float16."""
    return torch.bfloat16 if has_bfloat16 else torch.float16


def record_graph(function: Callable[..., Tensors], given: Tensors) -> Replay:
    """A CUDA graph of a function of tensors of fixed shapes; each replay hands out copies of its own."""
    inputs = tuple(tensor.clone() for tensor in given)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # libraries choose their algorithms before anything is recorded
            function(*inputs)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = function(*inputs)

    def replay(tensors: Tensors) -> Tensors:
        for place, tensor in zip(inputs, tensors, strict=True):
            place.copy_(tensor, non_blocking=True)
        graph.replay()
        return tuple(output.clone() for output in outputs)

    return replay
