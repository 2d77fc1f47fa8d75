"""The form of the Train tab: its components, and what happens between them before a run is started."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.blocks import Block
from gradio.events import Dependency

from stylegan.data.images import sample_sets
from stylegan.data.sources import VIDEO_ENDS
from stylegan.errors import StyleGANError
from stylegan.options import option_of
from stylegan.training.config import PRESETS, TrainConfig
from stylegan.training.run import run_folder
from stylegan.ui import branching, train_cost, train_form, train_pictures
from stylegan.ui.controls import widget
from stylegan.ui.session import AppContext
from stylegan.ui.train_form import FOLDER, GIVEN, SAMPLE, SETTINGS, SUBFOLDERS, UNUSED, UPLOAD, Form

RESOLUTIONS = (16, 32, 64, 128, 256, 512, 1024)
PICTURE_ENDS = (".zip", ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif")
NO_TRAINING = ("Training cannot be started from this page, because others can reach it or its processor is shared; "
               "start the app with `--training`, or give the command below on your own machine.")
FITS = [("Crop it", "crop"), ("Pad it", "pad"), ("Squeeze it", "resize")]
CLASSES = [("not used", UNUSED), ("as they come (dataset.json)", GIVEN), ("each subfolder is one", SUBFOLDERS)]
PRESET_WORDS = {
    "auto": "A good start for any pictures: StyleGAN2 with ADA, sized by the resolution and this machine.",
    "slim": "Small networks that two processor cores can train at 64 px.",
    "few-shot": "A hundred to a few thousand pictures: DiffAugment, small steps, a strong penalty.",
    "paper256": "As published at 256 px, for tens of thousands of pictures and a GPU.",
    "paper512": "As published at 512 px, for tens of thousands of pictures and a GPU.",
    "paper1024": "As published at 1024 px, for tens of thousands of pictures and several GPUs.",
    "cifar": "32 px and many kinds of things, as published for CIFAR-10.",
    "r3gan": "R3GAN's relativistic loss with both penalties at each step: steady, covers more of the variety.",
    "stylegan3-t": "StyleGAN3-T: details move with what they belong to; for films. Slower.",
    "stylegan3-r": "StyleGAN3-R: as T, and turns with it too. Slowest.",
    "stylegan1": "The first StyleGAN, for its look and for comparing.",
    "transfer": "From a model that was trained on something similar; set 'Continue from' below.",
}
FAMILY_WORDS = {"stylegan2": "StyleGAN2", "stylegan1": "StyleGAN1", "stylegan3-t": "StyleGAN3-T",
                "stylegan3-r": "StyleGAN3-R"}  # fmt: skip
AUGMENT_WORDS = {"ada": "ADA (adapts itself)", "diffaugment": "DiffAugment", "schedule": "rises slowly", "none": "none"}
TRANSFORM_WORDS = {"b": "flips and turns only", "bg": "up to place and shape", "bgc": "up to colour",
                   "bgcf": "up to sharpness", "bgcfn": "up to noise", "bgcfnc": "up to cutout"}  # fmt: skip
PRECISION_WORDS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
CHOICES = {"family": FAMILY_WORDS, "precision": PRECISION_WORDS, "augment": AUGMENT_WORDS,
           "transforms": TRANSFORM_WORDS}  # fmt: skip
NUMBERS = [name for name in SETTINGS if name not in (*CHOICES, "preset", "mirror", "tensorboard", "minutes", "kimg")]
QUICK = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


class TrainFields:
    """Everything that decides a new run; made inside the tab's column, `start` being wired by the tab."""

    def __init__(self, context: AppContext) -> None:
        self.context = context
        allowed = context.allow_training
        gr.Markdown(NO_TRAINING, visible=not allowed, elem_id="train-off")
        self._make_pictures()
        with gr.Group():
            self.name = gr.Textbox(label="Name of the run", max_length=64, elem_id="train-name")
            with gr.Row():
                self.resolution = gr.Dropdown(list(RESOLUTIONS), value=64, label="Resolution", min_width=90,
                                              elem_id="train-resolution")
                self.minutes = self._budget("minutes", "Minutes", 30)
                self.kimg = self._budget("kimg", "or kimg")
        with gr.Accordion("More settings", open=False, elem_id="train-more-settings") as self.more:
            self._make_recipe()
            self._make_shapes()
            self._make_rest()
        self.start = gr.Button("Start training", variant="primary", size="md", elem_id="train-start", visible=allowed)
        self.cost = widget("train-cost")
        self.problem = widget("train-words")
        self.shell = widget("train-shell")

    def _make_pictures(self) -> None:
        """Where the pictures come from, what they are, and how they are taken."""
        allowed, samples = self.context.allow_training, list(sample_sets())
        by_path = allowed and (self.context.data_roots or not self.context.public)
        sources = [SAMPLE, *([UPLOAD] if allowed else []), *([FOLDER] if by_path else [])]
        with gr.Group():
            self.source = gr.Radio(sources, value=SAMPLE, label="Pictures", elem_id="train-source")
            self.sample = gr.Dropdown(samples, value=samples[0] if samples else None, label="Sample set",
                                      show_label=False, elem_id="train-sample")
            self.uploads = gr.File(file_count="multiple", file_types=[*PICTURE_ENDS, *VIDEO_ENDS], height=110,
                                 label="A zip, pictures or videos", visible=False, elem_id="train-files")
            self.files = gr.State(None)  # their paths: each event that reads a gr.File leaves an empty file for each
            self.folder = gr.Textbox(label="Folder, zip or video on this machine", visible=False,
                                     elem_id="train-folder",
                                     placeholder=str(next(iter(self.context.data_roots), "")))
        self.pictures = widget("train-pictures")
        with gr.Accordion("How they are taken", open=False, elem_id="train-taking"), gr.Group():
            with gr.Row():
                self.fit = gr.Dropdown(FITS, value="crop", label="What is not square", min_width=110,
                                       elem_id="train-fit")
                self.every = gr.Textbox("1s", label="Video frame every", max_length=16, min_width=110,
                                        placeholder="1s", elem_id="train-every")
            self.classes = gr.Dropdown(CLASSES, value=UNUSED, label="Classes", elem_id="train-classes")
            self.drop_duplicates = gr.Checkbox(False, label="Leave out pictures that look like another",
                                               elem_id="train-drop-duplicates")
            self.mirror = gr.Checkbox(True, label="Also show them mirrored", elem_id="train-mirror")

    def _make_recipe(self) -> None:
        """How it learns; whatever is empty is chosen, and the placeholder says what it will be."""
        with gr.Group():
            self.preset = gr.Dropdown(list(PRESETS), value="auto", label="Preset", info=PRESET_WORDS["auto"],
                                      elem_id="train-preset")
            with gr.Row():
                self.family = self._choice("family", "Family")
                self.precision = self._choice("precision", "Precision")
            self.grow_kimg = self._number("grow_kimg", "Grow from 8 px, kimg a step", visible=False)
            with gr.Row():
                self.batch = self._number("batch", "Batch")
                self.accumulate = self._number("accumulate", "in parts")
            with gr.Row():
                self.lr = self._number("lr", "Learning rate")
                self.gamma = self._number("gamma", "R1 gamma")
        with gr.Group():
            self.augment = self._choice("augment", "Augmentation")
            self.transforms = self._choice("transforms", "Changes")
            with gr.Row():
                self.ada_target = self._number("ada_target", "ADA target")
                self.ada_cap = self._number("ada_cap", "Limit of p")

    def _make_shapes(self) -> None:
        """How large the networks are, and what they start from."""
        with gr.Group():
            with gr.Row():
                self.channel_base = self._number("channel_base", "Channel base")
                self.channel_max = self._number("channel_max", "Most channels")
            self.transfer = gr.Dropdown([("nothing", "")], label="Continue from", value="", allow_custom_value=True,
                                        elem_id="train-transfer")
            with gr.Row():
                self.freeze_d = self._number("freeze_d", "Freeze D blocks")
                self.seed = self._number("seed", "Seed")

    def _make_rest(self) -> None:
        """What is measured and kept."""
        with gr.Group():
            with gr.Row():
                self.holdout = self._number("holdout", "Share held out")
                self.metric_images = self._number("metric_images", "Fakes judged")
            self.snapshot_minutes = self._number("snapshot_minutes", "Minutes between snapshots")
            self.tensorboard = gr.Checkbox(False, label="Also write TensorBoard logs", elem_id="train-tensorboard")

    def _budget(self, name: str, label: str, value: float = 0) -> gr.Number:
        """A budget; 0 means that the other one counts."""
        about = option_of(TrainConfig, name)
        return gr.Number(value, label=label, minimum=about.low, maximum=about.high, min_width=90,
                         elem_id=f"train-{name}")

    def _number(self, name: str, label: str, visible: bool = True) -> gr.Textbox:
        """A number of the config; empty means 'choose for me', for which a gr.Number has no word."""
        return gr.Textbox(label=label, max_length=12, min_width=90, visible=visible,
                          elem_id=f"train-{name.replace('_', '-')}")

    def _choice(self, name: str, label: str) -> gr.Dropdown:
        """A choice of the config; its first entry is 'choose for me'."""
        return gr.Dropdown(choices_of(name, ""), value="", label=label, min_width=110,
                           elem_id=f"train-{name.replace('_', '-')}")

    # ---- wiring ------------------------------------------------------------------------------------------------------

    @property
    def inputs(self) -> dict[str, Block]:
        """The component of every field of a `Form`, by its name."""
        return {field.name: getattr(self, field.name) for field in fields(Form)}

    def wire(self, tab: Block) -> None:
        """Connect everything; `tab.select` is the first time that a page needs any of it."""
        gr.on([tab.select, self.transfer.focus], self.on_choices, self.transfer, self.transfer, **QUICK)
        self.transfer.change(self.on_transfer, self.transfer, self.transfer, **QUICK)
        self.source.input(self.on_source, self.source, [self.sample, self.uploads, self.folder], **QUICK)
        self.follow(self.uploads.change(lambda paths: paths, self.uploads, self.files, **QUICK))
        looks = [tab.select, self.source.input, self.sample.input, self.folder.submit, self.folder.blur,
                 self.resolution.input, self.fit.input, self.every.submit, self.every.blur,
                 self.drop_duplicates.input, self.classes.input]
        looked = gr.on(looks, self.on_look, inputs_kwargs=self.inputs, outputs=self.pictures, show_progress="minimal",
                       trigger_mode="always_last", api_visibility="private")
        edits = {name: one.input for name, one in self.inputs.items() if one is not self.files}
        left = {name: getattr(self, name).blur for name in ("name", *NUMBERS)}  # `input` may lack the last keystroke
        gr.on([tab.select, *left.values(), *edits.values()], self.on_form, inputs_kwargs=self.inputs,
              outputs=self.said, trigger_mode="always_last", **QUICK)
        looked.then(self.on_form, inputs_kwargs=self.inputs, outputs=self.said, **QUICK)
        costly = [each[name] for name in train_cost.DECIDES for each in (edits, left) if name in each]
        gr.on([tab.select, *costly], self.on_cost, inputs_kwargs=self.inputs, outputs=self.cost,
              trigger_mode="always_last", show_progress="hidden", api_visibility="private")

    @property
    def said(self) -> list[Block]:
        """What `on_form` answers with."""
        return [self.shell, self.name, *(getattr(self, name) for name in ("preset", *CHOICES, *NUMBERS))]

    def on_source(self, source: str) -> dict:
        """Show the one field that belongs to the chosen source."""
        return {self.sample: gr.Dropdown(visible=source == SAMPLE), self.uploads: gr.File(visible=source == UPLOAD),
                self.folder: gr.Textbox(visible=source == FOLDER)}

    def on_look(self, **form: Any) -> dict:
        """What the chosen pictures are, or one sentence why they cannot be used."""
        chosen = Form(**form)
        try:
            sources = train_form.chosen_sources(chosen, self.roots(chosen))
            look = train_pictures.look_at(sources, chosen.taking)
            return {self.pictures: train_pictures.pictures_view(look, chosen.taking, int(chosen.resolution or 64))}
        except StyleGANError as error:
            waits = (chosen.source == UPLOAD and not chosen.files) or (chosen.source == FOLDER and not chosen.folder)
            return {self.pictures: {"waits" if waits else "error": str(error)}}

    def on_form(self, **form: Any) -> dict:
        """The command of the form as it stands, the name the run would get, and what 'choose for me' comes to."""
        chosen = Form(**form)
        suggestion, roots = train_form.suggest_name(chosen, self.context.runs_root), self.roots(chosen)
        look = train_form.seen_sources(chosen, roots)
        try:
            out = run_folder(self.context.runs_root, (chosen.name or "").strip() or suggestion)
            config = self._config(chosen, train_form.data_of(chosen, out, roots, look), out)
            lines, resolved = [train_form.shell_line(config)], train_form.resolved(config)
            if train_form.needs_preparing(chosen, look):
                lines.insert(0, train_form.prepare_line(chosen, config, roots))
        except StyleGANError as error:
            return {self.shell: f"# {error}"}
        return {self.shell: "\n".join(lines), self.name: gr.Textbox(placeholder=suggestion), **self._chosen(resolved)}

    def on_cost(self, **form: Any) -> dict:
        """What the run would cost, or nothing while the form says nothing that can be."""
        chosen = Form(**form)
        try:
            config = train_form.resolved(self._config(chosen, "PICTURES", Path("RUN")))
            look = train_form.seen_sources(chosen, self.roots(chosen))
            num_classes = len(look.classes(chosen.taking)) if look and config.conditional else 0
            return {self.cost: train_cost.cost_view(config, num_classes, look.num_taken(chosen.taking) if look else 0)}
        except StyleGANError as error:
            return {self.cost: {"words": "", "problem": str(error)}}

    def _config(self, chosen: Form, data: str, out: Path) -> TrainConfig:
        """The form as a config."""
        return train_form.config_of(chosen, data, out, self.source_of(chosen.transfer or ""))

    def _chosen(self, resolved: TrainConfig) -> dict:
        """The fields with what 'choose for me' comes to; their own values stay."""
        numbers = {getattr(self, name): gr.Textbox(placeholder=f"{getattr(resolved, name):g}") for name in NUMBERS}
        choices = {getattr(self, name): gr.Dropdown(choices=choices_of(name, getattr(resolved, name)))
                   for name in CHOICES}  # fmt: skip
        numbers[self.grow_kimg] = gr.Textbox(placeholder="0", visible=resolved.family == "stylegan1")
        return {**numbers, **choices, self.preset: gr.Dropdown(info=PRESET_WORDS.get(resolved.preset, ""))}

    def on_choices(self, chosen: str | None) -> dict:
        """The models and runs that training can start from."""
        return {self.transfer: gr.Dropdown(choices=self._starts(chosen or ""))}

    def _starts(self, chosen: str) -> list[tuple[str, str]]:
        """(words, choice) of all that training can start from, and of what is chosen."""
        models = [(entry.name, entry.name) for entry in self.context.models.list()]
        return [("nothing", ""), *models, *branching.run_sources(self.context.runs_root, chosen)]

    def on_transfer(self, chosen: str | None) -> dict:
        """What the chosen moment of a run brings along."""
        return {self.transfer: gr.Dropdown(info=branching.words_of(self.context.runs_root, chosen or ""))}

    @property
    def fillable(self) -> list[Block]:
        """What `fill` answers with."""
        return [*self.inputs.values(), self.uploads, self.more, self.problem]

    def fill(self, values: dict[str, Any]) -> dict:
        """Put values of a `Form` by name into their components, and open the settings, where they can be seen."""
        updates: dict[str, dict[str, Any]] = {name: {"value": value} for name, value in values.items()}
        for name, source in (("sample", SAMPLE), ("uploads", UPLOAD), ("folder", FOLDER)):
            if "source" in values:
                updates.setdefault(name, {})["visible"] = values["source"] == source
        if values.get("transfer"):
            chosen = values["transfer"]
            words = branching.words_of(self.context.runs_root, chosen)
            updates["transfer"] |= {"choices": self._starts(chosen), "info": words}
        said = "" if "source" in values else branching.UNREAD
        return {getattr(self, name): gr.update(**update) for name, update in updates.items()} | {
            self.more: gr.Accordion(open=True), self.problem: said}  # fmt: skip

    def follow(self, filled: Dependency) -> None:
        """Tell command, pictures and cost anew, once files have come or another part of the tab has filled the form."""
        said = filled.success(self.on_form, inputs_kwargs=self.inputs, outputs=self.said, **QUICK)
        for tell, output in ((self.on_look, self.pictures), (self.on_cost, self.cost)):
            said.then(tell, inputs_kwargs=self.inputs, outputs=output, show_progress="hidden",
                      api_visibility="private")  # fmt: skip

    def roots(self, chosen: Form) -> list[Path]:
        """Where the pictures of the form may be read from: nowhere, on a page that cannot train on them."""
        return branching.roots_of(self.context, chosen.folder) if self.context.allow_training else []

    def source_of(self, chosen: str) -> str:
        """The file or run folder behind a choice of 'Continue from'; a StyleGANError names what there is."""
        if not chosen.startswith(branching.RUN_PREFIX):
            return str(self.context.models.find(chosen)) if chosen else ""
        return branching.run_source(self.context.runs_root, chosen)


def choices_of(name: str, resolved: str) -> list[tuple[str, str]]:
    """The entries of a choice: 'choose for me' with what that comes to, then each with its words."""
    words = CHOICES[name]
    auto = f"auto: {words[resolved]}" if resolved in words else "auto"
    named = [value for value in option_of(TrainConfig, name).choices if value != "auto"]
    return [(auto, ""), *((words.get(value, value), value) for value in named)]
