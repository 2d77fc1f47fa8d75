"""What the Timeline and Layers tabs ask of the server: the same latent on other models, and a look inside one (no
gradio)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from stylegan.errors import RequestError
from stylegan.inspection import Features, inspect_layer, list_layers
from stylegan.siblings import timelines
from stylegan.ui.answers import Answers, listed, picture, session_of, text_of, tile

MOST_FEATURES = 4
MAX_BYTES = 256 << 20


class Views:
    """The questions of both tabs, over the answers of the page."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.context, self.renderer = answers.context, answers.renderer
        self._features: OrderedDict[tuple, Features] = OrderedDict()

    def questions(self) -> list[Callable[[Any], dict]]:
        """What the browser may call."""
        return [self.timelines, self.stop, self.layers, self.layer]

    def timelines(self, question: Any) -> dict:
        """The timelines that the session's latent can be shown on."""
        found = timelines(self.context.models, self.context.runs_root, session_of(question).base.model)
        return {"timelines": [asdict(each) for each in found]}

    def stop(self, question: Any) -> dict:
        """The session on another model: the session as that model takes it, a small picture, and what was dropped."""
        session, name = session_of(question), text_of(question, "name")
        fitted, dropped = session.fit(self.answers.facts(name))
        result = self.renderer.render(fitted.request())
        said = f"without {listed(dropped)}" if dropped else ""
        return {"session": fitted.to_page(), "src": tile(result.pixels), "said": said}

    def layers(self, question: Any) -> dict:
        """The layers of the session's model, in order."""
        return {"layers": [asdict(layer) for layer in list_layers(self.renderer, session_of(question).request())]}

    def layer(self, question: Any) -> dict:
        """One layer as a picture (`channel`, or its principal components), its figures, and who answers at x, y."""
        features = self._look(question)
        channel = question.get("channel")
        if channel is not None and type(channel) is not int:
            raise RequestError("A channel is a whole number.")
        pixels = features.components() if channel is None else features.channel(channel)
        shown = {"src": picture(pixels), "layer": asdict(features.layer), "statistics": features.statistics(),
                 "spectrum": [round(float(value), 2) for value in features.spectrum()]}  # fmt: skip
        x, y = question.get("x"), question.get("y")
        if x is None and y is None:
            return {**shown, "answers": []}
        if type(x) not in (int, float) or type(y) not in (int, float):
            raise RequestError("A place of the picture lies between 0 and 1 on both axes.")
        top = [{"channel": index, "score": round(score, 2), "src": tile(features.channel(index))}
               for index, score in features.answers(x, y)]  # fmt: skip
        return {**shown, "answers": top}

    def _look(self, question: Any) -> Features:
        """The features of a question, computed or remembered from the last few."""
        request, name = session_of(question).request(), text_of(question, "name")
        key = (request.to_json(), self.renderer.model(request.model).hash, name)
        features = self._features.get(key) or inspect_layer(self.renderer, request, name)
        if features.maps.nbytes <= MAX_BYTES // MOST_FEATURES:
            self._features[key] = features
            self._features.move_to_end(key)
        while len(self._features) > MOST_FEATURES:
            self._features.popitem(last=False)
        return features
