"""The Train tab: choose pictures, start a run, and watch any run of this machine; the run itself is another process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import Context
from gradio.events import Dependency

from stylegan.errors import StyleGANError
from stylegan.training.run import TrainingRun
from stylegan.ui import branching, run_view, train_form
from stylegan.ui.controls import widget
from stylegan.ui.run_films import Films
from stylegan.ui.run_list import RunList
from stylegan.ui.session import AppContext
from stylegan.ui.train_fields import NO_TRAINING, QUICK, TrainFields
from stylegan.ui.train_form import Form


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
                self.form = TrainFields(context)

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
        listed = RunList(self.context.runs_root, self.context.allow_training)
        self.list = widget("train-compare", listed.questions())
        films = Films(self.context.runs_root, self.context.renderer, Path(gr.utils.get_upload_folder()))
        self.view = widget("train-run", [self.picture, self.change, *films.questions()])

    # ---- wiring ------------------------------------------------------------------------------------------------------

    def wire(self) -> TrainTab:
        """Connect everything; each answer is a dictionary of only what changes."""
        form = self.form
        shown = [self.runs, self.list, self.view, self.seen, self.stop, self.snapshot, self.resume, self.more]
        tab = Context.block  # a page that stays in Explore asks for nothing here
        gr.on([tab.select, self.runs.input], self.on_select, self.runs, shown, **QUICK)
        self.timer.tick(self.refresh, [self.runs, self.seen], shown, **QUICK)
        form.wire(tab)
        form.start.click(self.on_start, inputs_kwargs=form.inputs,
                         outputs=[*shown, *form.said, form.problem], show_progress_on=form.start,
                         api_visibility="private")
        acts = ((self.stop, self.on_stop, [self.runs]), (self.snapshot, self.on_snapshot, [self.runs]),
                (self.resume, self.on_continue, [self.runs, self.more]))
        for button, act, inputs in acts:
            button.click(act, inputs, shown, **QUICK)
        self.list.open_run(self.on_pick, None, shown, **QUICK)
        branched = self.view.branch(self.on_branch, self.runs, form.fillable, **QUICK)
        form.follow(branched)
        opened = self.view.open_model(self.on_open, self.runs, self.open_path, **QUICK)
        return TrainTab(opened, self.open_path)

    def refresh(self, name: str | None, seen: str) -> Any:
        """What is new of the named run since `seen`; of the one that trains, or the newest, without a name."""
        run = self._run(name)
        choices = run_view.run_choices(self.context.runs_root)
        version = f"{run_view.view_version(run)}|{choices}"
        if version == seen:
            return gr.skip()
        active, done = bool(run and run.is_active()), bool(run and run.state() == "done")
        may_end = active and self.context.allow_training
        may_resume = bool(run) and not active and self.context.allow_training
        unit, budget = train_form.budget(run) if run else ("kimg", 0.0)
        shown = run.name if run else None
        chosen = {"value": shown} if not seen or shown != name else {}  # a late tick does not undo a newer choice
        return {
            self.runs: gr.Dropdown(choices=choices, visible=bool(choices), **chosen),
            self.list: {"num": len(choices), "run": shown},
            self.view: run_view.run_view(run), self.seen: version,
            self.stop: gr.Button(visible=may_end, interactive=may_end and run.state() != "stopping"),
            self.snapshot: gr.Button(visible=may_end),
            self.resume: gr.Button(f"Continue for {unit}" if done else "Continue", visible=may_resume),
            self.more: gr.Number(visible=may_resume and done, **({"value": budget} if not seen else {})),
        }

    def on_select(self, name: str | None) -> dict:
        """Everything about the chosen run, or about the one that trains or is newest."""
        return self.refresh(name, "")

    def on_pick(self, event: gr.EventData) -> dict:
        """Show the run that was chosen in the list of all."""
        return self.refresh(str(event.name), "")

    def on_start(self, **form: Any) -> dict:
        """Start a run and show it, or say in one sentence why not."""
        chosen = Form(**form)
        if not self.context.allow_training:  # the button is hidden, but whoever knows the page's events can press it
            return {self.form.problem: NO_TRAINING}
        try:
            run = train_form.start_run(chosen, self.context.runs_root, self.form.roots(chosen),
                                       self.form.source_of(chosen.transfer or ""))
            return {**self.refresh(run.name, ""), **self.form.on_form(**form), self.form.problem: ""}
        except StyleGANError as error:
            return {self.form.problem: str(error)}

    def on_stop(self, name: str | None) -> dict:
        """Ask the shown run to save and end."""
        return self._act(name, TrainingRun.ask_stop)

    def on_snapshot(self, name: str | None) -> dict:
        """Ask the shown run for a snapshot."""
        return self._act(name, TrainingRun.ask_snapshot, "A snapshot is on its way.")

    def on_continue(self, name: str | None, more: float | None) -> dict:
        """Take up the shown run where it was left."""
        return self._act(name, lambda run: train_form.continue_run(run, more))

    def on_open(self, name: str | None, event: gr.EventData) -> dict:
        """The snapshot nearest to the grid on screen, for Explore to open."""
        run = self._run(name)
        path = run_view.snapshot_at(run, int(event.nimg)) if run else None
        if path is None:
            raise gr.Error("This run has saved no model yet; press Snapshot now, or wait for the next one.")
        return {self.open_path: str(path)}

    def on_branch(self, name: str | None, event: gr.EventData) -> dict:
        """Fill the form with a new run that starts from the snapshot nearest to the grid on screen."""
        try:
            return self.form.fill(branching.branch(self.context, self._run(name), event.nimg))
        except StyleGANError as error:
            return {self.form.problem: str(error)}

    def picture(self, question: Any) -> dict[str, str]:
        """A grid for the page: {"run": name, "nimg": count} or {"run": name, "reals": true}."""
        return run_view.picture(self.context.runs_root, question)

    def change(self, question: Any) -> dict[str, str]:
        """New live settings from the page, where training may be started from it."""
        if not self.context.allow_training:
            return {"error": "Settings cannot be changed from this page; use the shell of the machine that trains."}
        return run_view.change(self.context.runs_root, question)

    def _act(self, name: str | None, act: Callable[[TrainingRun], Any], said: str = "") -> dict:
        """Do something with a run where this page may, then show it anew; a mistake is one sentence."""
        try:
            run = self._run(name)
            if not self.context.allow_training:
                said = NO_TRAINING
            elif run is not None:
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
