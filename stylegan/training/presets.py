"""Named settings: what a preset says instead of 'choose for me' (no torch).

`auto` and the paper presets: arXiv 2006.06676 appendix C and its published tool, whose `cifar` has another
discriminator. `few-shot`: 2006.10738 section 4.3. `r3gan`: 2501.05441 sections 3 and 4, its loss, penalties and
schedules on the networks, and with the learning rate, of this project. `stylegan3-*`: 2106.12423 appendix F.
`stylegan1`: 1812.04948 appendix C, at a fixed resolution unless `grow_kimg` is given. `transfer`: 2002.10964.
"""

from __future__ import annotations

from typing import Any

# Widths and batch that two processor cores can train at 64 px; every preset takes them on a machine without a GPU where
# it has no word of its own.
SLIM = {"channel_base": 1536, "channel_max": 128, "z_dim": 256, "w_dim": 256, "batch": 16}

_PAPER = {"mapping_layers": 8, "pl_weight": 2.0, "ema_ramp": 0.0}
_STYLEGAN3 = {"mixing": 0.0, "lr": 0.0025, "lr_discriminator": 0.002, "batch": 32, "conv_clamp": 256.0}

PRESETS: dict[str, dict[str, Any]] = {
    "auto": {},
    "slim": SLIM,
    "few-shot": {"augment": "diffaugment", "batch": 8, "lr": 0.002, "ema_kimg": 10.0},
    "paper256": {**_PAPER, "batch": 64, "mbstd_group": 8, "channel_base": 16384, "gamma": 1.0, "ema_kimg": 20.0},
    "paper512": {**_PAPER, "batch": 64, "mbstd_group": 8, "channel_base": 32768, "gamma": 0.5, "ema_kimg": 20.0},
    "paper1024": {**_PAPER, "batch": 32, "channel_base": 32768, "gamma": 2.0, "ema_kimg": 10.0, "lr": 0.002},
    "cifar": {"batch": 64, "mbstd_group": 32, "channel_base": 32768, "gamma": 0.01, "ema_kimg": 500.0, "mixing": 0.0},
    "r3gan": {
        "loss": "relativistic", "r1_interval": 1, "r2": True, "schedule": "cosine", "augment": "schedule",
        "ada_cap": 0.3, "mixing": 0.0, "mbstd_group": 1, "ema_kimg": 500.0, "z_dim": 64,
    },
    "stylegan3-t": {**_STYLEGAN3, "family": "stylegan3-t"},
    "stylegan3-r": {**_STYLEGAN3, "family": "stylegan3-r", "blur_pixels": 10.0},
    "stylegan1": {
        "family": "stylegan1", "mapping_layers": 8, "r1_interval": 1, "gamma": 10.0, "lr": 0.0015, "ema_kimg": 10.0,
        "ema_ramp": 0.0, "augment": "none",
    },
    "transfer": {"ada_kimg": 100.0, "ema_ramp": 0.0, "lr": 0.002},
}  # fmt: skip


def gamma_of(preset: str, family: str, resolution: int, batch: int) -> float:
    """The weight of R1 where nobody gave one, from pixels and batch: each paper's own rule."""
    if preset == "r3gan":
        return 2.0 * (resolution / 64) ** 3  # 2 at 64 px and about 150 at 256 px, as published
    if preset == "few-shot":
        return 10.0 * (resolution / 256) ** 2  # 10 at 256 px, as published
    if family.startswith("stylegan3"):
        return 2.0 * (resolution / 256) ** 2
    return 0.0002 * resolution**2 / batch
