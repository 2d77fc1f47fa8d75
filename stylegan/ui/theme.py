"""The looks: a calm paper-and-ink theme with one green accent, light and dark, nothing loaded from elsewhere."""

from __future__ import annotations

from typing import Any

import gradio as gr

from stylegan.ui.controls import STATIC, script
from stylegan.ui.session import AppContext

GREEN = gr.themes.Color(
    name="viridian",
    c50="#eef6f3",
    c100="#d8eae4",
    c200="#b3d6cb",
    c300="#86bdad",
    c400="#58a08d",
    c500="#378371",
    c600="#27695a",
    c700="#205549",
    c800="#1c443b",
    c900="#183932",
    c950="#0c211d",
)
PAPER = gr.themes.Color(
    name="paper",
    c50="#faf8f4",
    c100="#f3f0ea",
    c200="#e6e1d8",
    c300="#d2ccc0",
    c400="#a39e94",
    c500="#77736b",
    c600="#57544e",
    c700="#3a3a3a",
    c800="#26282b",
    c900="#1b1d20",
    c950="#131517",
)
SANS = ["Inter", "ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif"]
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
MAX_UPLOAD = "2gb"


class Atelier(gr.themes.Base):
    """Warm paper by day, a darkroom by night."""

    def __init__(self) -> None:
        super().__init__(
            primary_hue=GREEN,
            secondary_hue=GREEN,
            neutral_hue=PAPER,
            font=SANS,
            font_mono=MONO,
            text_size=gr.themes.sizes.text_sm,
            spacing_size=gr.themes.sizes.spacing_md,
            radius_size=gr.themes.sizes.radius_md,
        )
        self.name = "atelier"
        self.set(
            body_background_fill="#f6f3ed",
            body_background_fill_dark="#131517",
            body_text_color="#24262a",
            body_text_color_dark="#e8e5de",
            body_text_color_subdued="#706d66",
            body_text_color_subdued_dark="#98958d",
            background_fill_primary="#fffdfa",
            background_fill_primary_dark="#1b1d20",
            background_fill_secondary="#f3f0ea",
            background_fill_secondary_dark="#212327",
            border_color_primary="#e4dfd5",
            border_color_primary_dark="#303338",
            block_background_fill="#fffdfa",
            block_background_fill_dark="#1b1d20",
            block_border_color="#e4dfd5",
            block_border_color_dark="#303338",
            block_shadow="none",
            block_shadow_dark="none",
            block_label_background_fill="transparent",
            block_label_background_fill_dark="transparent",
            input_background_fill="#fbf9f5",
            input_background_fill_dark="#15171a",
            button_primary_background_fill="*primary_600",
            button_primary_background_fill_hover="*primary_700",
            button_primary_background_fill_dark="*primary_500",
            button_primary_background_fill_hover_dark="*primary_400",
            button_primary_text_color="#ffffff",
            button_primary_text_color_dark="#0c1513",
            button_secondary_background_fill="#f3f0ea",
            button_secondary_background_fill_dark="#26282b",
            button_secondary_background_fill_hover="#e6e1d8",
            button_secondary_background_fill_hover_dark="#303338",
            color_accent_soft="*primary_100",
            color_accent_soft_dark="#1d3a34",
            slider_color="*primary_600",
            slider_color_dark="*primary_400",
        )


def launch_options(context: AppContext) -> dict[str, Any]:
    """What `Blocks.launch` needs for our looks and our rules: no share link, no history, no folder of files."""
    return {
        "theme": Atelier(),
        "css_paths": sorted(STATIC.glob("*.css"), key=lambda path: (path.stem != "studio", path.name)),
        "head": "".join(f"<script>{script(name)}</script>" for name in ("studio", "tree")),
        "share": False,
        "run_history": False,
        "footer_links": [],
        "ssr_mode": False,
        "pwa": False,
        "max_file_size": MAX_UPLOAD,
        "favicon_path": STATIC / "favicon.png",
    }
