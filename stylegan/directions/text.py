"""Directions from words, given a network that maps pictures and texts to one space (StyleCLIP, arXiv 2103.17249 §6).

Shapes: N pictures, T texts, E width of the encoder's space, C_i channels of affine map i.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan.device import full_precision
from stylegan.directions.channels import top_channels
from stylegan.directions.population import sample_w
from stylegan.directions.small import small_images
from stylegan.directions.styles import channel_direction, style_direction, style_ranges, style_spreads
from stylegan.errors import DirectionError
from stylegan.latents import Direction, Latents
from stylegan.networks.generator import Generator
from stylegan.request import channel_of

TEXT = "text"
MAX_TEXT = 200
TEMPLATES = ("{}", "a picture of {}", "a photo of {}", "a close-up of {}", "a drawing of {}", "a rendering of {}",
             "a good picture of {}", "an image of {}")  # fmt: skip
STEP = 3.0  # standard deviations of a channel, either way, at which pictures are compared
_SPARE = 3  # channels measured by pictures for each one that is kept
_SIDE = 256  # pixels of the pictures that the encoder sees, at most


class Encoder(Protocol):
    """A network that maps pictures and texts to unit vectors of one space; `images` can be differentiated."""

    def images(self, image: Tensor) -> Tensor:
        """Unit vectors [N, E] of pictures [N, 3, H, W] in [-1, 1]."""
        ...

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [T, E] of texts."""
        ...


@dataclass(frozen=True)
class TextStep:
    """How far the search is (0 to 1), what it does, and on the last step the direction."""

    done: float
    message: str
    direction: Direction | None = None

    def __str__(self) -> str:
        return f"{self.done:4.0%} {self.message}"


def search_text(generator: Generator, encoder: Encoder, target: str, neutral: str = "a face", name: str = "text",
                num_channels: int = 20, pictures: int = 8, psi: float = 0.7, seed: int = 0) -> Iterator[TextStep]:
    """The direction from the words `neutral` to the words `target`, on `num_channels` channels: fewer are purer.

    A channel's relevance is how far a step along it, both ways, moves pictures along the way between the two texts
    (section 6.1). Gradients name the likely channels, pictures measure those. `info["gain"]` is the gain of
    similarity along the texts for one standard deviation. Raises DirectionError when no channel is relevant.
    """
    for text in (target, neutral):
        if not isinstance(text, str) or not 0 < len(text.strip()) <= MAX_TEXT or not text.isprintable():
            raise DirectionError(f"A text is 1 to {MAX_TEXT} characters on one line.")
    if generator.img_channels != 3:
        raise DirectionError("Directions from words need a model that makes colour pictures.")
    if num_channels < 1:
        raise DirectionError(f"A sparse direction moves at least 1 channel, not {num_channels}.")
    way = text_way(encoder, target, neutral)  # [E]
    latents = Latents.from_w(sample_w(generator, max(2, pictures), seed), generator.num_ws)
    latents = latents.truncate(generator.w_avg.cpu(), psi)[: max(1, pictures)]
    slopes = [torch.zeros(width) for _, _, width in style_ranges(generator)]
    for number, one in enumerate(latents):
        yield TextStep(0.3 * number / len(latents), f"asking picture {number + 1} of {len(latents)} for its channels")
        with full_precision():
            for total, slope in zip(slopes, _slopes(generator, encoder, one, way), strict=True):
                total += slope / len(latents)
    likely = top_channels([slope.abs() for slope in slopes], _SPARE * num_channels)
    shifts = [torch.zeros(width) for _, _, width in style_ranges(generator)]
    for number, (channel, _) in enumerate(likely):
        yield TextStep(0.3 + 0.7 * number / len(likely), f"measuring channel {channel}")
        index, place = channel_of(channel)
        with full_precision():
            shifts[index][place] = relevance(generator, encoder, latents, channel, way)
    kept = _kept(shifts, num_channels)
    info = {"method": "channels by a text, arXiv 2103.17249", "target": target, "neutral": neutral}
    direction = style_direction(generator, name, kept, TEXT, info, sample_w(generator, 2_000, seed))
    with full_precision():
        gain = _gain(generator, encoder, latents, direction, way, 1.0) / 2
    info = {**direction.info, "gain": round(gain, 5)}
    yield TextStep(1.0, f"{direction.num_channels} channels", Direction(
        name, direction.vector, direction.layers, TEXT, "", info, direction.channels, direction.rows))


@torch.no_grad()
def text_way(encoder: Encoder, target: str, neutral: str) -> Tensor:
    """The unit vector [E] from one text to the other, each the mean over some phrasings (section 6.2)."""
    means = [F.normalize(encoder.texts([template.format(text) for template in TEMPLATES]).mean(0), dim=0)
             for text in (target, neutral)]
    way = means[0] - means[1]
    if not torch.isfinite(way).all() or way.norm() < 1e-6:
        raise DirectionError("The two texts mean the same to the text encoder; choose others.")
    return F.normalize(way, dim=0)


def relevance(generator: Generator, encoder: Encoder, latents: Latents, channel: str, way: Tensor) -> float:
    """How far pictures move along `way` [E] when a channel goes from -STEP to +STEP deviations, on average."""
    return _gain(generator, encoder, latents, channel_direction(generator, channel), way, STEP)


@torch.no_grad()
def _gain(generator: Generator, encoder: Encoder, latents: Latents, direction: Direction, way: Tensor,
          strength: float) -> float:
    """The mean difference along `way` between pictures at +strength and at -strength."""
    ends = []
    for sign in (1, -1):
        moved = latents.move(direction, sign * strength)
        styles = generator.synthesis.styles(moved.ws.to(generator.device), moved.offsets)
        ends.append((encoder.images(_pictures(generator, styles)) @ way).mean())
    return float(ends[0] - ends[1])


def _slopes(generator: Generator, encoder: Encoder, latents: Latents, way: Tensor) -> list[Tensor]:
    """The slope along `way` for one deviation of each channel at one picture, [C_i] each."""
    with torch.no_grad():
        styles = generator.synthesis.styles(latents.ws.to(generator.device), latents.offsets)
    styles = [style.detach().clone().requires_grad_() for style in styles]
    with torch.enable_grad():
        along = (encoder.images(_pictures(generator, styles)) @ way).sum()
        found = torch.autograd.grad(along, styles, allow_unused=True)
    return [torch.zeros(len(spread)) if slope is None else slope[0].cpu() * spread
            for slope, spread in zip(found, style_spreads(generator), strict=True)]


def _pictures(generator: Generator, styles: list[Tensor]) -> Tensor:
    """Pictures [N, 3, S, S] as the encoder sees them, on the CPU where it is."""
    return small_images(generator, styles, min(_SIDE, generator.resolution)).clamp(-1, 1).cpu()


def _kept(shifts: list[Tensor], num_channels: int) -> list[Tensor]:
    """The `num_channels` most relevant shifts; DirectionError when none is."""
    kept = [torch.zeros_like(shift) for shift in shifts]
    for name, value in top_channels([shift.abs() for shift in shifts], num_channels):
        index, place = channel_of(name)
        if value > 1e-7:
            kept[index][place] = shifts[index][place]
    if not any(shift.any() for shift in kept):
        raise DirectionError("No channel of this model moves its pictures towards that text; choose other words.")
    return kept


class OpenClip:
    """An open_clip model from a weights file that the user names; nothing is ever downloaded."""

    def __init__(self, weights: str | Path, model: str = "ViT-B-32") -> None:
        library, config = _open_clip(model)
        if not Path(weights).is_file():
            raise DirectionError(f"There is no file {Path(weights).name!r}; name the weights that you have, nothing is "
                                 "downloaded.")
        self.model = library.create_model(model, pretrained=None).eval().requires_grad_(False)
        problem = _load(self.model, Path(weights))
        if problem:
            raise DirectionError(f"{Path(weights).name} holds no weights of {model}: {problem}.")
        self.tokenize = library.get_tokenizer(model)
        visual = self.model.visual
        self.side = visual.image_size[0] if isinstance(visual.image_size, tuple | list) else visual.image_size
        self.mean = torch.tensor(visual.image_mean or config["mean"])[:, None, None]
        self.std = torch.tensor(visual.image_std or config["std"])[:, None, None]

    def images(self, image: Tensor) -> Tensor:
        """Unit vectors [N, E] of pictures [N, 3, H, W] in [-1, 1]."""
        image = F.interpolate(image, (self.side, self.side), mode="bicubic", antialias=True, align_corners=False)
        return F.normalize(self.model.encode_image(((image + 1) / 2 - self.mean) / self.std), dim=1)

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [T, E] of texts."""
        return F.normalize(self.model.encode_text(self.tokenize(list(texts))), dim=1)


def _open_clip(model: str) -> tuple[Any, dict]:
    """The library and its usual colours; DirectionError when it is missing, or the model would fetch something."""
    try:
        import open_clip
    except (ImportError, RuntimeError):  # a torchvision of another torch raises the latter
        raise DirectionError("Directions from words need the optional package open_clip_torch; install it with "
                             "'pip install open_clip_torch', and name a weights file.") from None
    config = open_clip.get_model_config(model)
    if config is None:
        raise DirectionError(f"open_clip knows no model {model[:40]!r}; the usual one is ViT-B-32.")
    text = config.get("text_cfg", {})
    if text.get("hf_model_name") or text.get("hf_tokenizer_name"):
        raise DirectionError(f"The model {model[:40]!r} would fetch its tokenizer from the network; use ViT-B-32.")
    return open_clip, {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}


def _load(model: torch.nn.Module, path: Path) -> str:
    """Load a safetensors or weights-only file strictly; what is wrong with it, or ""."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        state = {name.removeprefix("module."): value for name, value in state.items()}
        missing, extra = model.load_state_dict(state, strict=False)
    except Exception as error:
        return f"it cannot be read ({type(error).__name__})"
    return f"{len(missing)} of its tensors are missing, {len(extra)} unknown" if missing or extra else ""
