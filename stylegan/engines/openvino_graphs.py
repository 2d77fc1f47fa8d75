"""The pieces of every family as OpenVINO graphs, built from the modules' own tensors; one picture, no tracing.

Styles act on features (a scale before a convolution, one after it), so weights are constants and can be laid out once.
Demodulation is done by whoever fills the inputs, in float32 (`Knob.values`).

Letters: N batch (1), C channels, I input channels, O output channels, K kernel, R resolution, T filter taps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from openvino import Model, opset13

from stylegan.networks import stylegan1, stylegan2, stylegan3
from stylegan.networks.layers import normalize_2nd_moment
from stylegan.networks.pieces import Piece
from stylegan.ops.bias_act import SLOPE, SQRT2

EPSILON = 1e-8


@dataclass(frozen=True)
class Knob:
    """What a layer wants besides features: its style's number within the piece, and the function that makes of the
    style [1, C] the graph's inputs [1, C', 1, 1]; `noise` is the layer whose noise field is wanted after them."""

    style: int
    values: Callable[[torch.Tensor], list[torch.Tensor]]
    noise: torch.nn.Module | None = None


@dataclass
class Graph:
    """A piece as a graph under construction. Inputs are x and image where there are any, then those of `knobs`.

    Features come and go with channels last, [1, H, W, C], which is how they lie in memory. `packed` computes doubling
    convolutions as one convolution to four times the channels: more work, which pays where transposed ones are slow.
    """

    packed: bool
    inputs: list[Any] = field(default_factory=list)
    knobs: list[Knob] = field(default_factory=list)

    def parameter(self, *shape: int) -> Any:
        """A new input of float32 numbers."""
        self.inputs.append(opset13.parameter(list(shape), np.float32))
        return self.inputs[-1]

    def features(self, channels: int, size: int) -> Any:
        """A new input of features, as [1, C, H, W]."""
        return _turned(self.parameter(1, size, size, channels), (0, 3, 1, 2))

    def knob(self, style: int, values: Callable, sizes: list[int], noisy: torch.nn.Module | None = None) -> list[Any]:
        """New inputs [1, C', 1, 1] of these sizes, then one for noise when `noisy` has any; None for noise without."""
        noisy = noisy if noisy is not None and noisy.use_noise else None
        self.knobs.append(Knob(style, values, noisy))
        found = [self.parameter(1, size, 1, 1) for size in sizes]
        return [*found, self.parameter(1, 1, *noisy.noise_const.shape) if noisy is not None else None]

    def model(self, name: str, x: Any, image: Any) -> Model:
        """The finished graph; its results are x, unless nobody needs it, and image, where there is one."""
        results = [] if x is None else [_turned(x, (0, 2, 3, 1))]
        return Model(results + ([] if image is None else [image]), self.inputs, name)


def build_graph(piece: Piece, is_last: bool, packed: bool) -> tuple[Model, list[Knob]]:
    """The graph of a piece for one picture, and how to fill its inputs; the last piece of a network gives no x.

    Raises NotImplementedError for a piece that has no graph.
    """
    graph = Graph(packed)
    if isinstance(piece, stylegan2.Block):
        x, image = _stylegan2(graph, piece)
    elif isinstance(piece, stylegan1.Block):
        x, image = _stylegan1(graph, piece)
    elif isinstance(piece, stylegan3.FilteredLayer):
        x, image = _stylegan3(graph, piece)
    else:
        raise NotImplementedError(f"There is no graph for the piece {piece.name}.")
    return graph.model(piece.name, None if is_last else x, image), graph.knobs


def _stylegan2(graph: Graph, block: stylegan2.Block) -> tuple[Any, Any]:
    """All layers of one resolution (arXiv 1912.04958 sections 2 and 3)."""
    half = block.resolution // 2
    x = _constant(block.const[None]) if block.is_first else graph.features(block.conv0.weight.shape[1], half)
    has_before = not block.is_first and block.architecture == "skip"
    image = graph.parameter(1, block.torgb.weight.shape[0], half, half) if has_before else None
    resnet = not block.is_first and block.architecture == "resnet"
    skip = _doubled(_convolved(x, block.skip.weight * (block.skip.weight_gain * math.sqrt(0.5))),
                    block.skip.resample_filter) if resnet else None  # fmt: skip
    rgb = None
    for index, (name, layer) in enumerate(block.layers()):
        if name == "torgb":
            scale, _ = graph.knob(index, lambda s, gain=layer.weight_gain: [s * gain], [layer.weight.shape[1]])
            rgb = _convolved(opset13.multiply(x, scale), layer.weight)
            rgb = _clamped(opset13.add(rgb, _channels(layer.bias)), layer.clamp)
        else:
            x = _styled(graph, index, layer, x, math.sqrt(0.5) if resnet and name == "conv1" else 1.0)
            x = opset13.add(x, skip) if resnet and name == "conv1" else x
    if image is not None:
        image = _doubled(image, block.resample_filter)
    return x, rgb if image is None else image if rgb is None else opset13.add(image, rgb)


def _styled(graph: Graph, index: int, layer: stylegan2.StyledConv, x: Any, gain: float) -> Any:
    """Modulated convolution, noise, bias, leaky ReLU; the gain rides on demodulation, noise and bias."""
    total = SQRT2 * gain
    energy = layer.weight.detach().square().sum(dim=(2, 3)).t().contiguous()  # [I, O]

    def values(style: torch.Tensor) -> list[torch.Tensor]:
        return [style, (style.square() @ energy + EPSILON).rsqrt() * total]

    outputs, inputs = layer.weight.shape[:2]
    before, after, noise = graph.knob(index, values, [inputs, outputs], layer)
    x = opset13.multiply(x, before)
    if layer.up == 1:
        x = _convolved(x, layer.weight, padding=1)
    else:
        x = _transposed(graph, x, layer.weight)
        taps = layer.resample_filter.shape[-1]
        padding = ((taps + 1) // 2 - 1, (taps - 2) // 2)
        x = _filtered(x, layer.resample_filter * 4, outputs, padding)
    x = opset13.add(opset13.multiply(x, after), _channels(layer.bias * total))
    if noise is not None:
        x = opset13.add(x, opset13.multiply(noise, _constant(layer.noise_strength * total)))
    return _clamped(_bent(x), layer.clamp * gain)


def _stylegan1(graph: Graph, block: stylegan1.Block) -> tuple[Any, Any]:
    """Two styled layers (arXiv 1812.04948 figure 1b): convolution, noise, bias, leaky ReLU, AdaIN."""
    if block.fade:
        raise NotImplementedError(f"There is no graph for {block.name}, which still fades in.")
    half = block.resolution // 2
    x = _constant(block.const[None]) if block.is_first else graph.features(block.conv0.weight.shape[1], half)
    for index, layer in enumerate((block.conv0, block.conv1)):
        channels = len(layer.bias)
        scale, shift, noise = graph.knob(index, lambda style: list(style.chunk(2, dim=1)), [channels] * 2, layer)
        if isinstance(layer, stylegan1.StyledConv):
            weight = layer.weight * layer.weight_gain
            if layer.up == 1:
                x = _convolved(x, weight, padding=1)
            else:
                wide = torch.nn.functional.pad(weight.flip(2, 3), (1, 1, 1, 1))  # [O, I, 5, 5]
                kernel = wide[:, :, 1:, 1:] + wide[:, :, :-1, 1:] + wide[:, :, 1:, :-1] + wide[:, :, :-1, :-1]
                x = opset13.convolution_backprop_data(x, _constant(kernel.transpose(0, 1)), [2, 2], pads_begin=[1, 1],
                                                      pads_end=[1, 1])  # fmt: skip
                blur = torch.tensor([0.25, 0.5, 0.25])
                x = _filtered(x, blur.outer(blur), channels, (1, 1))
        if noise is not None:
            x = opset13.add(x, opset13.multiply(noise, _channels(layer.noise_weight)))
        x = _bent(opset13.add(x, _channels(layer.bias)))
        x = opset13.mvn(x, np.array([2, 3]), True, stylegan1.EPSILON, "inside_sqrt")
        x = opset13.add(opset13.multiply(x, scale), shift)
    if not block.has_image:
        return x, None
    rgb = _convolved(x, block.torgb.weight * block.torgb.weight_gain)
    return x, opset13.add(rgb, _channels(block.torgb.bias))


def _stylegan3(graph: Graph, layer: stylegan3.FilteredLayer) -> tuple[Any, Any]:
    """Modulated convolution and filtered leaky ReLU (arXiv 2106.12423 section 3.2)."""
    spec, weight = layer.spec, layer.weight.detach()
    outputs, inputs = weight.shape[:2]
    gain = float(layer.magnitude_ema.rsqrt())
    energy = weight.square().sum(dim=(2, 3)).t().contiguous()  # [I, O]

    def values(style: torch.Tensor) -> list[torch.Tensor]:
        if spec.is_torgb:
            return [style * (layer.weight_gain * gain)]
        style = normalize_2nd_moment(style)
        return [style, (style.square() @ energy + EPSILON).rsqrt() * gain]

    x = graph.features(inputs, spec.in_size)
    before, *after, _ = graph.knob(0, values, [inputs] if spec.is_torgb else [inputs, outputs])
    x = _convolved(opset13.multiply(x, before), weight, padding=spec.kernel - 1)
    x = opset13.multiply(x, after[0]) if after else x
    x = opset13.add(x, _channels(layer.bias))
    bend = 1.0 if spec.is_torgb else SQRT2  # leaky ReLU's gain, which rides on the filter's
    padding = spec.padding[:2]
    if layer.up_filter is not None:
        x = _widened(x, layer.up_filter * (spec.up * math.sqrt(bend)), outputs, spec.up, padding)
    else:
        x = opset13.multiply(_padded(x, padding) if any(padding) else x, _constant(bend))
    x = x if spec.is_torgb else _bent(x)
    x = _clamped(x, layer.clamp)
    if layer.down_filter is not None:
        x = _narrowed(x, layer.down_filter, outputs, spec.down)
    return x, opset13.multiply(x, _constant(stylegan3.OUTPUT_SCALE)) if spec.is_torgb else None


def _widened(x: Any, taps: torch.Tensor, channels: int, up: int, padding: tuple[int, int]) -> Any:
    """Upsample along one axis and then along the other, with filter [T] of every channel."""
    begin, end = len(taps) - 1 - padding[0], len(taps) - up - padding[1]  # pixels that are cut off
    down = taps[:, None].expand(channels, 1, 1, -1, -1)  # [C, 1, 1, T, 1]
    x = opset13.group_convolution_backprop_data(x, _constant(down), strides=[up, 1], pads_begin=[begin, 0],
                                                pads_end=[end, 0])  # fmt: skip
    across = taps[None, :].expand(channels, 1, 1, -1, -1)  # [C, 1, 1, 1, T]
    return opset13.group_convolution_backprop_data(x, _constant(across), strides=[1, up], pads_begin=[0, begin],
                                                   pads_end=[0, end])  # fmt: skip


def _narrowed(x: Any, taps: torch.Tensor, channels: int, down: int) -> Any:
    """Filter [T] or [T, T] of every channel and keep every down-th pixel."""
    if taps.ndim == 2:
        return _filtered(x, taps, channels, stride=(down, down))
    x = _filtered(x, taps[:, None], channels, stride=(down, 1))
    return _filtered(x, taps[None, :], channels, stride=(1, down))


def _padded(x: Any, padding: tuple[int, int]) -> Any:
    """Zeros around the picture, or pixels cut off where `padding` (before, after) is negative."""
    begin, end = [0, 0, padding[0], padding[0]], [0, 0, padding[1], padding[1]]
    return opset13.pad(x, np.array(begin), np.array(end), "constant", np.float32(0))


def _filtered(
    x: Any, kernel: torch.Tensor, channels: int, padding: tuple[int, int] = (0, 0), stride: tuple[int, int] = (1, 1)
) -> Any:
    """Convolve every channel with kernel [T, T'] after zero padding (before, after), and keep some pixels."""
    weight = _constant(kernel.flip(0, 1)[None, None, None].expand(channels, -1, -1, -1, -1))  # [C, 1, 1, T, T']
    return opset13.group_convolution(x, weight, list(stride), [padding[0]] * 2, [padding[1]] * 2, [1, 1])


def _convolved(x: Any, weight: torch.Tensor, padding: int = 0) -> Any:
    """Plain convolution with weight [O, I, K, K]."""
    return opset13.convolution(x, _constant(weight), [1, 1], [padding] * 2, [padding] * 2, [1, 1])


def _transposed(graph: Graph, x: Any, weight: torch.Tensor) -> Any:
    """Transposed 3x3 convolution of stride 2, [1, O, 2R + 1, 2R + 1], with weight [O, I, 3, 3]."""
    if not graph.packed:
        return opset13.convolution_backprop_data(x, _constant(weight.transpose(0, 1)), [2, 2])
    outputs, inputs = weight.shape[:2]
    # Pixel (2i + a, 2j + b) sees the taps of a's and b's parity on pixels i, i - 1 and j, j - 1.
    phases = weight.new_zeros(outputs, 2, 2, inputs, 2, 2)
    for a in range(2):
        for b in range(2):
            taps = weight[:, :, a::2, b::2].flip(2, 3)  # [O, I, 2 or 1, 2 or 1]
            phases[:, a, b, :, 2 - taps.shape[2] :, 2 - taps.shape[3] :] = taps
    x = _convolved(x, phases.reshape(outputs * 4, inputs, 2, 2), padding=1)
    x = opset13.depth_to_space(x, "depth_first", 2)  # [1, O, 2R + 2, 2R + 2]
    return _padded(x, (0, -1))


def _doubled(x: Any, kernel: torch.Tensor) -> Any:
    """Upsample by 2 with kernel [T, T], the mean kept; T of 2 or more."""
    taps, channels = kernel.shape[-1], x.get_output_partial_shape(0)[1].get_length()
    weight = (kernel * 4)[None, None, None].expand(channels, -1, -1, -1, -1)
    begin, end = taps - 1 - (taps + 1) // 2, taps - 2 - (taps - 2) // 2
    return opset13.group_convolution_backprop_data(x, _constant(weight), strides=[2, 2], pads_begin=[begin] * 2,
                                                   pads_end=[end] * 2)  # fmt: skip


def _bent(x: Any) -> Any:
    """Leaky ReLU."""
    return opset13.prelu(x, _constant(torch.tensor([SLOPE])))


def _clamped(x: Any, clamp: float) -> Any:
    """Limit to +-clamp; 0 leaves all as it is."""
    return opset13.clamp(x, -clamp, clamp) if clamp else x


def _turned(x: Any, order: tuple[int, ...]) -> Any:
    """Axes in another order."""
    return opset13.transpose(x, np.array(order))


def _channels(values: torch.Tensor) -> Any:
    """A constant [1, C, 1, 1]."""
    return _constant(values.reshape(1, -1, 1, 1))


def _constant(values: torch.Tensor | float) -> Any:
    """A float32 constant."""
    return opset13.constant(np.ascontiguousarray(torch.as_tensor(values).detach().float().numpy()))
