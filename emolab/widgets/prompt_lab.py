"""`prompt_lab()`: edit a prompt in a notebook and watch which emotions a model represents at each token.

Here is the state and what happens when it changes; `prompt_lab.js` is the front end, `lab_view.py` says what is
drawn, `twin.py` draws it without a kernel. Scores come from `Readout`: the model runs once for each text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import traitlets as t

from emolab.checks import check_chat
from emolab.directions import METRICS
from emolab.errors import EmolabError
from emolab.model import Subject
from emolab.readout import UNITS, Readout, readout
from emolab.vectors import EmotionVectors
from emolab.widgets import front
from emolab.widgets.lab_view import SLOT, Look, View, filled, sound, sweep_values, sweep_view, text_view
from emolab.widgets.live import LiveWidget
from emolab.widgets.twin import Frozen, twin

MOST_TOKENS = 1024  # of a text in the lab: beyond, a strip can't be read and an edit takes seconds
MOST_CHARACTERS = 200_000  # beyond, not even the tokens are counted
KEPT_BYTES = 2**28  # of readouts that are not on display
PRESETS = {
    "danger": "I smelled smoke in the hallway. Now the flames are at my door, and the window will not open.",
    "safety": "I smelled toast in the hallway. Now the sun is at my door, and the window stands wide open.",
    "desperation": "The rent was due last week. I have called everyone I know, and nobody will lend me anything. "
    "I would do anything, anything at all.",
    "comfort": "You don't have to say a word. I put the kettle on and your blanket is by the fire. Stay as long as "
    "you like.",
    "grief": "His coat still hangs by the door. Every evening I set two plates, and then I put one of them back.",
    "good news": "They just called from the clinic: it is not what we thought. She is well, and she comes home on "
    "Sunday!",
}
TEMPLATE = f"I took {SLOT} mg of the painkiller this morning."
VALUES = "200, 400, 800, 2000, 5000, 10000, 20000"
INPUTS = (
    "mode", "chat", "text", "other", "turns", "other_turns", "sweep", "emotions", "shown", "layer", "metric", "unit",
    "serial",
)  # fmt: skip


class PromptLab(LiveWidget):
    """The live prompt lab; made by `prompt_lab()`. Set its traits to drive it from Python.

    mode : 'one' text, 'compare' two, or 'sweep' a number
    chat : read `turns` (and `other_turns`) in the model's chat template instead of `text` (and `other`)
    sweep : {'template': text with one {x}, 'x': '1, 2, 5'}
    emotions, layer, metric, unit : how it is looked at; `shown` is the emotion on the token strip
    view, error, code : what is on display (the last that worked), what went wrong, the call that makes it
    """

    _esm = front("common.js", "prompt_lab.js")
    _css = front("prompt_lab.css")

    mode = t.Enum(("one", "compare", "sweep"), "one").tag(sync=True)
    chat = t.Bool(False).tag(sync=True)
    text = t.Unicode(PRESETS["danger"]).tag(sync=True)
    other = t.Unicode(PRESETS["safety"]).tag(sync=True)
    turns = t.List().tag(sync=True)
    other_turns = t.List().tag(sync=True)
    sweep = t.Dict({"template": TEMPLATE, "x": VALUES}).tag(sync=True)
    emotions = t.List(t.Unicode()).tag(sync=True)
    shown = t.Unicode("").tag(sync=True)
    layer = t.Int(1).tag(sync=True)
    metric = t.Unicode("probe").tag(sync=True)
    unit = t.Unicode("sd").tag(sync=True)
    serial = t.Int(0).tag(sync=True)  # the front end counts its edits ...
    done = t.Int(0).tag(sync=True)  # ... and knows by this which of them it sees
    view = t.Dict().tag(sync=True)
    error = t.Unicode("").tag(sync=True)
    progress = t.Unicode("").tag(sync=True)
    code = t.Unicode("").tag(sync=True)
    choices = t.Dict().tag(sync=True)

    def __init__(self, subject: Subject, vectors: EmotionVectors, **state: Any):
        self.subject, self.vectors = subject, vectors
        self.limit = min(MOST_TOKENS, subject.max_tokens)
        self.readouts: tuple[Readout, ...] = ()
        self._kept: dict[str, Readout] = {}
        self._answered: tuple | None = None
        super().__init__(choices=_choices(vectors), **state)
        self.turns = self.turns or [{"role": "user", "content": self.text}]
        self.other_turns = self.other_turns or [{"role": "user", "content": self.other}]
        self._view = self._show()  # what can't be shown at first is the caller's error
        self.observe(self._update, INPUTS)
        self.on_msg(self._asked_to)

    def __repr__(self) -> str:
        return f"PromptLab({self.mode}, {', '.join(self._view.look.emotions)}; {self._view.caption})"

    def freeze(self) -> Frozen:
        """What is on display, as HTML that needs neither kernel nor script."""
        return Frozen(twin(self._view, self.shown))

    def _asked_to(self, _widget: Any, content: Any, _buffers: Any) -> None:
        if isinstance(content, dict) and content.get("do") == "freeze":
            self._show_frozen()

    def _update(self, _change: Any = None) -> None:
        """Answer a change, once for all traits that changed together. On an error the last view stays."""
        asked = repr([getattr(self, name) for name in INPUTS])
        if asked == self._answered:
            return
        self._answered, error = asked, ""
        try:
            self._view = self._show()
        except EmolabError as problem:
            error = str(problem)
        except Exception as problem:  # of the model or its chat template; unseen if it were raised here
            error = f"{type(problem).__name__}: {problem}"
        with self.hold_sync():
            self.error, self.progress, self.done = error, "", self.serial

    def _show(self) -> View:
        """Compute the view and send it."""
        look = Look(tuple(dict.fromkeys(self.emotions)), self.layer, self.metric, self.unit)
        for name in look.emotions:
            self.vectors.index(name)
        if self.mode == "sweep":
            template = sound(str(self.sweep.get("template", "")))
            values = sweep_values(str(self.sweep.get("x", "")))
            found = self._read_all(map(self._message, filled(template, values)), len(values))
            view = sweep_view(template, values, found, look)
        else:
            found = self._read_all(self._prompts(), 2 if self.mode == "compare" else 1)
            view = text_view(found, look)
        view = replace(view, note=self.subject.plain if self.chat else "")
        self.readouts = tuple(found)
        with self.hold_sync():
            if self.shown not in look.emotions:
                self.shown = look.emotions[0]
            self.view, self.code = view.payload(), self._call(look)
        return view

    def _prompts(self) -> list[str | list[dict]]:
        """The prompts of this mode: plain texts or chats."""
        both = [self.turns, self.other_turns] if self.chat else [self.text, self.other]
        return both if self.mode == "compare" else both[:1]

    def _message(self, text: str) -> str | list[dict]:
        return [{"role": "user", "content": text}] if self.chat else text

    def _read_all(self, prompts: Any, count: int) -> list[Readout]:
        found = []
        for number, prompt in enumerate(prompts):
            if self.mode == "sweep":
                self.progress = f"{number + 1} of {count}"
            try:
                found.append(self._read(prompt))
            except EmolabError as problem:
                where = f"{'AB'[number]}: " if self.mode == "compare" else ""
                raise EmolabError(f"{where}{problem}") from None
        self._forget(found)
        return found

    def _read(self, prompt: str | list[dict]) -> Readout:
        """The readout of a prompt: kept from before, or by one forward pass. Raises EmolabError if too long."""
        prompt = sound(prompt) if isinstance(prompt, str) else _sound_chat(prompt)
        key = repr(prompt)
        if key not in self._kept:
            self._check_length(prompt if isinstance(prompt, str) else self.subject.chat(prompt))
            self._kept[key] = readout(self.subject, self.vectors, prompt)
        self._kept[key] = self._kept.pop(key)  # newest last
        return self._kept[key]

    def _check_length(self, text: str) -> None:
        if len(text) > MOST_CHARACTERS:
            raise EmolabError(f"the text has {len(text):,} characters: the lab shows at most {self.limit:,} tokens")
        tokens = len(self.subject.tokenizer(text, verbose=False)["input_ids"])
        if tokens > self.limit:
            raise EmolabError(
                f"the text has {tokens:,} tokens and the lab shows at most {self.limit:,}: cut {tokens - self.limit:,} "
                f"of them, or read it with vectors.readout(subject, text) (the model takes {self.subject.max_tokens:,})"
            )

    def _forget(self, in_use: Sequence[Readout]) -> None:
        """Drop the oldest readouts beyond the budget; those on display stay."""
        size = sum(kept.hidden.nbytes for kept in self._kept.values())
        for key in list(self._kept):
            if size <= KEPT_BYTES:
                return
            if not any(self._kept[key] is used for used in in_use):
                size -= self._kept.pop(key).hidden.nbytes

    def _call(self, look: Look) -> str:
        """The call that makes the same static figure."""
        if self.mode == "sweep":
            said = {"template": self.sweep["template"], "x": self.sweep["x"]} | ({"chat": True} if self.chat else {})
        else:
            said = dict(zip(("text", "other"), self._prompts(), strict=False))
        said |= {"emotions": list(look.emotions), "shown": self.shown} | look.view
        given = ",\n".join(f"    {name}={value!r}" for name, value in said.items())
        return f"el.prompt_lab(\n    subject,\n    vectors,\n{given},\n).freeze()"


def prompt_lab(
    subject: Subject,
    vectors: EmotionVectors,
    text: str | list[dict] | None = None,
    other: str | list[dict] | None = None,
    *,
    template: str | None = None,
    x: str | Sequence[float] | None = None,
    chat: bool = False,
    emotions: Sequence[str] | None = None,
    shown: str | None = None,
    layer: int | None = None,
    metric: str | None = None,
    unit: str = "sd",
) -> PromptLab:
    """A widget to edit a prompt and watch the emotions that the model represents at each of its tokens.

    Parameters
    ----------
    text : what to begin with, plain or a chat (a list of `{"role": ..., "content": ...}`).
    other : a second prompt: the lab opens with both side by side and their difference.
    template, x : a text with one slot `{x}` and the numbers to put there: the lab opens with the sweep.
    chat : read texts and template as a user's message, in the model's chat template.
    emotions, shown : the tracks, at most 8, and the one of them on the token strip.
    layer, metric, unit : as in `Readout.scores`.

    Raises EmolabError for vectors of another model, unknown names, or a prompt that can't be shown.
    """
    vectors.check(subject)
    usual = [name for name in ("afraid", "calm") if name in vectors.emotions]
    state: dict[str, Any] = {
        "emotions": list(emotions or usual or vectors.emotions[:2]),
        "layer": vectors.chosen_layer if layer is None else layer,
        "metric": metric or vectors.metric,
        "unit": unit,
        "shown": shown or "",
        "chat": chat or isinstance(text, list) or isinstance(other, list),
    }
    for prompt, plain, turns in ((text, "text", "turns"), (other, "other", "other_turns")):
        if not isinstance(prompt, str | None):
            state |= {turns: check_chat(prompt), plain: prompt[-1]["content"]}
        elif prompt is not None:
            state |= {plain: prompt}
    if template is not None or x is not None:
        values = VALUES if x is None else x if isinstance(x, str) else ", ".join(map(str, _several(x)))
        state |= {"mode": "sweep", "sweep": {"template": TEMPLATE if template is None else template, "x": values}}
    elif other is not None:
        state["mode"] = "compare"
    return PromptLab(subject, vectors, **state)


def _several(x: Any) -> Any:
    """What one can go through: x, or x alone, which a sweep refuses in its own words."""
    return x if isinstance(x, Iterable) else [x]


def _choices(vectors: EmotionVectors) -> dict[str, Any]:
    return {
        "emotions": list(vectors.emotions),
        "layers": [vectors.layers[0], vectors.layers[-1]],
        "chosen": vectors.chosen_layer,
        "metrics": list(METRICS),
        "units": UNITS,
        "presets": PRESETS,
    }


def _sound_chat(messages: list[dict]) -> list[dict]:
    """The messages with sound text. Raises EmolabError if they are no chat, or one without a word."""
    clean = [{"role": sound(m["role"]), "content": sound(m["content"])} for m in check_chat(messages)]
    if not any(message["content"].strip() for message in clean):
        raise EmolabError("the chat is empty: give at least one word")
    return clean
