"""The card beside an imported model: what it is, where it came from, and what to mind."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stylegan.checkpoint.file import Checkpoint

UNKNOWN_LICENCE = "not stated in the file; ask whoever made the model before you use or share it"


def architecture(checkpoint: Checkpoint) -> dict[str, str]:
    """What a network is, as label and text: family, sizes, latents, classes, parameters."""
    config = checkpoint.config
    count = sum(tensor.numel() for tensor in checkpoint.tensors.values())
    family = {"stylegan1": "StyleGAN1", "stylegan2": f"StyleGAN2 ({config.architecture})"}.get(config.family)
    if config.family == "stylegan3":
        family = "StyleGAN3-R" if any(layer.radial for layer in config.layers) else "StyleGAN3-T"
    colours = {1: "grey", 3: "RGB", 4: "RGBA"}.get(config.img_channels, f"{config.img_channels} channels")
    return {
        "Family": str(family),
        "Picture": f"{config.resolution} x {config.resolution} px, {colours}",
        "Latents": f"z {config.z_dim}, w {config.w_dim}, {config.num_ws} layers of W+",
        "Mapping": f"{config.mapping_layers} layers",
        "Classes": str(config.num_classes or "none"),
        "Parameters": f"{count:,}",
    }


def model_card(name: str, checkpoint: Checkpoint, half: bool = False) -> str:
    """The card as Markdown."""
    provenance = checkpoint.provenance
    rows: dict[str, Any] = architecture(checkpoint) | {
        "Stored as": "float16 (computed in float32)" if half else "float32",
        "Origin": provenance.get("origin", "a file of this program"),
        "Source file": provenance.get("source", "unknown"),
        "Source SHA-256": provenance.get("sha256", "unknown"),
    }
    if "url" in provenance:
        rows["Address"] = provenance["url"]
    rows["Licence"] = provenance.get("licence", UNKNOWN_LICENCE)
    lines = [f"# {name}", "", "Imported without running anything that the file contains.", "", "| | |", "|---|---|"]
    lines += [f"| {label} | {_literal(text)} |" for label, text in rows.items()]
    notes = [f"* {_literal(note)}" for note in provenance.get("notes", [])]
    return "\n".join([*lines, *(["", *notes] if notes else []), ""])


def _literal(text: Any) -> str:
    """Text on one line that Markdown and HTML take as it is."""
    return re.sub(r"([\\`*_|\[\]#~])", r"\\\1", html.escape(" ".join(str(text).split()), quote=False))
