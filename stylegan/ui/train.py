"""The Train tab: choose pictures, start a run, and watch any run of this machine; the run itself is another process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import gradio as gr
from gradio.context import Context
from gradio.events import Dependency

from stylegan.data.images import sample_sets
from stylegan.errors import StyleGANError
from stylegan.options import option_of
from stylegan.training.config import PRESETS, TrainConfig
from stylegan.training.run import TrainingRun
from stylegan.ui import run_view, train_form
from stylegan.ui.controls import widget
from stylegan.ui.session import AppContext
from stylegan.ui.train_form import FOLDER, SAMPLE, UPLOAD, Form

RESOLUTIONS = (16, 32, 64, 128, 256, 512, 1024)
PICTURE_TYPES = [".zip", ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"]
NO_TRAINING = ("Training cannot be started from this page, because others can reach it or its processor is shared; "
               "start the app with `--training`, or give the command below on your own machine.")


@dataclass(frozen=True)
class TrainTab:
    """What other tabs may use: `opened` happens when a snapshot is asked for, whose path then stands in `open_path`."""

    opened: Dependency
    open_path: gr.State


def build(context: AppContext) -> TrainTab:
    """Make the components of the tab and wire them; called inside its gr.Tab."""
    return _Tab(context).wire()


class _Tab:
    """The components of one tab and what happens between them; the run folder holds all that lasts."""

    def __init__(self, context: AppContext) -> None:
        self.context = context
        self.seen = gr.State("")
        self.open_path = gr.State("")
        self.timer = gr.Timer(context.timer_seconds)
        with gr.Row(elem_id="train"):
            with gr.Column(scale=1, min_width=320, elem_id="train-view"):
                self._make_view()
            with gr.Column(scale=0, min_width=350, elem_id="train-setup"):
                self._make_form()

    def _make_view(self) -> None:
        """The run picker, what can be done with the run, and the run itself."""
        with gr.Row(elem_id="train-actions"):
            self.runs = gr.Dropdown([], label="Run", show_label=False, container=False, allow_custom_value=True,
                                    min_width=180, scale=2, visible=False, elem_id="train-runs")
            self.resume = gr.Button("Continue", size="md", scale=0, min_width=170, visible=False,
                                    elem_id="train-continue")
            self.more = gr.Number(10, show_label=False, container=False, minimum=0.1, scale=0, min_width=80,
                                  visible=False, elem_id="train-more")
            self.snapshot = gr.Button("Snapshot now", size="md", scale=0, min_width=120, visible=False,
                                      elem_id="train-snapshot")
            self.stop = gr.Button("Stop and save", size="md", scale=0, min_width=120, visible=False,
                                  elem_id="train-stop")
        self.view = widget("train-run", [self.picture, self.change])

    def _make_form(self) -> None:
        """Everything that decides a new run."""
        allowed, samples = self.context.allow_training, list(sample_sets())
        by_path = allowed and (self.context.data_roots or not self.context.public)
        sources = [SAMPLE, *([UPLOAD] if allowed else []), *([FOLDER] if by_path else [])]
        gr.Markdown(NO_TRAINING, visible=not allowed, elem_id="train-off")
        with gr.Group():
            self.source = gr.Radio(sources, value=SAMPLE, label="Pictures", elem_id="train-source")
            self.sample = gr.Dropdown(samples, value=samples[0] if samples else None, label="Sample set",
                                      show_label=False, elem_id="train-sample")
            self.files = gr.File(file_count="multiple", file_types=PICTURE_TYPES, label="A zip, or several pictures",
                                 height=110, visible=False, elem_id="train-files")
            self.folder = gr.Textbox(label="Folder or zip on this machine", visible=False, elem_id="train-folder",
                                     placeholder=str(next(iter(self.context.data_roots), "")))
        self.pictures = widget("train-pictures")
        with gr.Group():
            self.name = gr.Textbox(label="Name of the run", max_length=64, elem_id="train-name")
            with gr.Row():
                self.resolution = gr.Dropdown(list(RESOLUTIONS), value=64, label="Resolution", min_width=90,
                                              elem_id="train-resolution")
                self.minutes = self._number("minutes", "Minutes", 30)
                self.kimg = self._number("kimg", "or kimg")
        with gr.Accordion("More settings", open=False, elem_id="train-more-settings"):
            self._make_more()
        self.start = gr.Button("Start training", variant="primary", size="md", elem_id="train-start", visible=allowed)
        self.problem = widget("train-words")
        self.shell = widget("train-shell")

    def _make_more(self) -> None:
        """What most people leave alone; as in the command, 0 means 'choose for me'."""
        with gr.Group():
            with gr.Row():
                self.preset = gr.Dropdown(list(PRESETS), value="auto", label="Preset", min_width=110)
                self.batch = self._number("batch", "Batch (0: auto)")
            with gr.Row():
                self.gamma = self._number("gamma", "R1 gamma (0: auto)")
                self.ada_target = self._number("ada_target", "ADA target (0: off)", 0.6, step=0.05)
            with gr.Row():
                self.seed = self._number("seed", "Seed")
                self.transfer = gr.Dropdown([("nothing", "")], label="Continue from", value="", allow_custom_value=True,
                                            min_width=110, elem_id="train-transfer")
            self.mirror = gr.Checkbox(True, label="Also show the pictures mirrored")
            self.conditional = gr.Checkbox(False, label="Use the classes of the pictures")

    def _number(self, name: str, label: str, value: float = 0, step: float = 1) -> gr.Number:
        """A number field of the config with its range."""
        about = option_of(TrainConfig, name)
        return gr.Number(value, label=label, minimum=about.low, maximum=about.high, step=step, min_width=90,
                         elem_id=f"train-{name.replace('_', '-')}")

    # ---- wiring ------------------------------------------------------------------------------------------------------

    def wire(self) -> TrainTab:
        """Connect everything; each answer is a dictionary of only what changes."""
        quick = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        form = {field.name: getattr(self, field.name) for field in fields(Form)}
        shown = [self.runs, self.view, self.seen, self.stop, self.snapshot, self.resume, self.more]
        tab = Context.block  # a page that stays in Explore asks for nothing here
        gr.on([tab.select, self.runs.input], self.on_select, self.runs, shown, **quick)
        self.timer.tick(self.refresh, [self.runs, self.seen], shown, **quick)
        gr.on([tab.select, self.transfer.focus], self.on_choices, None, [self.transfer], **quick)
        self.source.input(self.on_source, self.source, [self.sample, self.files, self.folder], **quick)
        looks = [tab.select, self.source.input, self.sample.input, self.files.change, self.folder.submit,
                 self.folder.blur, self.resolution.input]
        gr.on(looks, self.on_look, inputs_kwargs=form, outputs=self.pictures, show_progress="minimal",
              trigger_mode="always_last", api_visibility="private")
        edits = [one.change if one is self.files else one.input for one in form.values()]
        gr.on([tab.select, self.name.blur, *edits], self.on_form, inputs_kwargs=form,
              outputs=[self.shell, self.name], trigger_mode="always_last", **quick)
        self.start.click(self.on_start, inputs_kwargs=form, outputs=[*shown, self.shell, self.name, self.problem],
                         show_progress_on=self.start, api_visibility="private")
        acts = ((self.stop, self.on_stop, [self.runs]), (self.snapshot, self.on_snapshot, [self.runs]),
                (self.resume, self.on_continue, [self.runs, self.more]))
        for button, act, inputs in acts:
            button.click(act, inputs, shown, **quick)
        opened = self.view.open_model(self.on_open, self.runs, self.open_path, **quick)
        return TrainTab(opened, self.open_path)

    def refresh(self, name: str | None, seen: str) -> Any:
        """What is new of the named run since `seen`; of the one that trains, or the newest, without a name."""
        run = self._run(name)
        choices = run_view.run_choices(self.context.runs_root)
        version = f"{run_view.view_version(run)}|{choices}"
        if version == seen:
            return gr.skip()
        active, done = bool(run and run.is_active()), bool(run and run.state() == "done")
        may_resume = bool(run) and not active and self.context.allow_training
        unit, budget = train_form.budget(run) if run else ("kimg", 0.0)
        return {
            self.runs: gr.Dropdown(choices=choices, value=run.name if run else None, visible=bool(choices)),
            self.view: run_view.run_view(run), self.seen: version,
            self.stop: gr.Button(visible=active, interactive=active and run.state() != "stopping"),
            self.snapshot: gr.Button(visible=active),
            self.resume: gr.Button(f"Continue for {unit}" if done else "Continue", visible=may_resume),
            self.more: gr.Number(visible=may_resume and done, **({"value": budget} if not seen else {})),
        }

    def on_select(self, name: str | None) -> dict:
        """Everything about the chosen run, or about the one that trains or is newest."""
        return self.refresh(name, "")

    def on_source(self, source: str) -> dict:
        """Show the one field that belongs to the chosen source."""
        return {self.sample: gr.Dropdown(visible=source == SAMPLE), self.files: gr.File(visible=source == UPLOAD),
                self.folder: gr.Textbox(visible=source == FOLDER)}

    def on_look(self, **form: Any) -> dict:
        """What the chosen pictures are, or one sentence why they cannot be used."""
        chosen = Form(**form)
        try:
            look = train_form.look_at(train_form.chosen_sources(chosen, self.context.data_roots))
            return {self.pictures: train_form.pictures_view(look, int(chosen.resolution))}
        except StyleGANError as error:
            waits = (chosen.source == UPLOAD and not chosen.files) or (chosen.source == FOLDER and not chosen.folder)
            return {self.pictures: {"waits" if waits else "error": str(error)}}

    def on_form(self, **form: Any) -> dict:
        """The command of the form as it stands, and the name the run would get."""
        chosen = Form(**form)
        suggestion = train_form.suggest_name(chosen, self.context.runs_root)
        out = self.context.runs_root / (chosen.name or suggestion)
        try:
            data, transfer = train_form.data_of(chosen, out) or "PICTURES", self._transfer(chosen.transfer or "")
            config = train_form.config_of(chosen, data, out, transfer)
            return {self.shell: train_form.shell_line(config), self.name: gr.Textbox(placeholder=suggestion)}
        except StyleGANError as error:
            return {self.shell: f"# {error}"}

    def on_start(self, **form: Any) -> dict:
        """Start a run and show it, or say in one sentence why not."""
        chosen = Form(**form)
        try:
            run = train_form.start_run(chosen, self.context.runs_root, self.context.data_roots,
                                       self._transfer(chosen.transfer or ""))
            return {**self.refresh(run.name, ""), **self.on_form(**form), self.problem: ""}
        except StyleGANError as error:
            return {self.problem: str(error)}

    def on_stop(self, name: str | None) -> dict:
        """Ask the shown run to save and end."""
        return self._act(name, TrainingRun.ask_stop)

    def on_snapshot(self, name: str | None) -> dict:
        """Ask the shown run for a snapshot."""
        return self._act(name, TrainingRun.ask_snapshot, "A snapshot is on its way.")

    def on_continue(self, name: str | None, more: float | None) -> dict:
        """Take up the shown run where it was left."""
        return self._act(name, lambda run: train_form.continue_run(run, more))

    def on_choices(self) -> dict:
        """The models and runs that training can start from."""
        models = [entry.name for entry in self.context.models.list()]
        runs = train_form.run_sources(self.context.runs_root)
        choices = [("nothing", ""), *((one, one) for one in models + runs)]
        return {self.transfer: gr.Dropdown(choices=choices)}

    def on_open(self, name: str | None, event: gr.EventData) -> dict:
        """The snapshot nearest to the grid on screen, for Explore to open."""
        run = self._run(name)
        path = run_view.snapshot_at(run, int(event.nimg)) if run else None
        if path is None:
            raise gr.Error("This run has saved no model yet; press Snapshot now, or wait for the next one.")
        return {self.open_path: str(path)}

    def picture(self, question: Any) -> dict[str, str]:
        """A grid for the page: {"run": name, "nimg": count} or {"run": name, "reals": true}."""
        return run_view.picture(self.context.runs_root, question)

    def change(self, question: Any) -> dict[str, str]:
        """New live settings from the page, where training may be started from it."""
        if not self.context.allow_training:
            return {"error": "Settings cannot be changed from this page; use the shell of the machine that trains."}
        return run_view.change(self.context.runs_root, question)

    def _act(self, name: str | None, act: Callable[[TrainingRun], Any], said: str = "") -> dict:
        """Do something with a run, then show it anew; a mistake is one sentence."""
        try:
            run = self._run(name)
            if run is not None:
                act(run)
        except StyleGANError as error:
            said = str(error)
        answer = self.refresh(name, "")
        return {**answer, self.view: {**answer[self.view], "said": said or answer[self.view].get("said", "")}}

    def _run(self, name: str | None) -> TrainingRun | None:
        """The run a page means; a name that cannot be one means none in particular."""
        try:
            return run_view.find_run(self.context.runs_root, name)
        except StyleGANError:
            return run_view.find_run(self.context.runs_root, None)

    def _transfer(self, chosen: str) -> str:
        """The file or run folder behind a choice of 'Continue from'; a StyleGANError names what there is."""
        if not chosen.startswith(train_form.RUN_PREFIX):
            return str(self.context.models.find(chosen)) if chosen else ""
        return train_form.run_source(self.context.runs_root, chosen)
