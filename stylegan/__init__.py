"""StyleGAN Studio: explore, edit and train StyleGAN generators. Public names load their room when first used."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "errors": ("StyleGANError", "RequestError", "CheckpointError", "DataError", "TrainingError", "DownloadError",
               "DirectionError"),
    "request": ("RenderRequest", "Edit", "Mix", "Transform"),
    "shortcode": ("to_code", "from_code"),
    "seeds": ("z_of",),
    "latents": ("Latents", "Direction"),
    "pixels": ("save_png", "read_request"),
    "networks.config": ("GeneratorConfig",),
    "networks.generator": ("Generator",),
    "checkpoint.file": ("Checkpoint", "load_generator", "read_checkpoint", "save_checkpoint"),
    "render": ("Renderer", "RenderResult"),
}
_ROOM_OF = {name: room for room, names in _HOMES.items() for name in names}

__version__ = "0.1.0"
__all__ = sorted(_ROOM_OF)


def __getattr__(name: str) -> Any:
    """Import the room of a public name on first use, so that `import stylegan` stays quick."""
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'stylegan' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"stylegan.{_ROOM_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return sorted({*globals(), *__all__})
