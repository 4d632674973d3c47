"""`steering_desk()`: push emotions with sliders and watch a model write, with the push and without it, side by side.

A thread writes, so that the kernel stays free; it does so on a twin of the model that shares all weights, so that its
pushes never reach what other cells compute. `steering_desk.js` is the front end, `desk_view.py` what is shown;
writing and reading are in `writing.py`.
"""

from __future__ import annotations

import threading
import time
from contextlib import closing
from typing import Any

import numpy as np
import traitlets as t

from emolab.errors import EmolabError
from emolab.model import Subject
from emolab.steering import steered_layers
from emolab.vectors import EmotionVectors
from emolab.widgets import front
from emolab.widgets.desk_view import SIDES, Written, desk_twin, read_again
from emolab.widgets.lab_view import SD_RANGE, sound, visible
from emolab.widgets.live import LiveWidget
from emolab.widgets.twin import Frozen
from emolab.writing import Both, own_hooks, side_by_side

MOST_EMOTIONS, MOST_STRENGTH = 6, 1.0
MOST_TOKENS = 200  # written at a time
MOST_PROMPT = 512  # tokens of a prompt: beyond, a strip can't be read
MOST_CHARACTERS = 50_000  # beyond, not even the tokens are counted
PAUSE = 0.08  # seconds between two looks at a text that is being written
TEXT = "Dear diary, this evening I am sitting at the kitchen table, and"
POSITIONS = {"all": None, "prompt": "prompt", "generated": "generated"}
_WRITING = threading.Lock()  # one text at a time, whatever the number of desks


class SteeringDesk(LiveWidget):
    """The live desk; made by `steering_desk()`. Set its traits and call `run()` to drive it from Python.

    text, chat : what to write on from, as it is or as a user's message in the chat template
    pushes : {emotion: strength}; `shown` is the emotion that colours the tokens
    layer, positions : where to push: a layer; 'all' tokens, the 'prompt', or what is 'generated'
    greedy, seed, max_tokens : how to write
    running, error, state : what it is doing; `written` holds the two texts of the last run
    """

    _esm = front("common.js", "steering_desk.js")
    _css = front("prompt_lab.css", "steering_desk.css")

    text = t.Unicode(TEXT).tag(sync=True)
    chat = t.Bool(False).tag(sync=True)
    pushes = t.Dict().tag(sync=True)
    shown = t.Unicode("").tag(sync=True)
    layer = t.Int(1).tag(sync=True)
    positions = t.Enum(tuple(POSITIONS), "all").tag(sync=True)
    greedy = t.Bool(False).tag(sync=True)
    seed = t.Int(0).tag(sync=True)
    max_tokens = t.Int(40).tag(sync=True)
    asked = t.Int(0).tag(sync=True)  # the front end counts its runs: so they come after the edits before them
    running = t.Bool(False).tag(sync=True)
    state = t.Unicode("").tag(sync=True)
    error = t.Unicode("").tag(sync=True)
    view = t.Dict().tag(sync=True)
    code = t.Unicode("").tag(sync=True)
    choices = t.Dict().tag(sync=True)

    def __init__(self, subject: Subject, vectors: EmotionVectors, **state: Any):
        self.subject, self.vectors = subject, vectors
        self.written: tuple[Written, ...] = ()
        self._emotions: tuple[str, ...] = ()  # of the texts on display
        self._cut = False  # whether these were stopped
        self._where = ""  # what was pushed for them, and where
        self._note = ""  # how the prompt was given
        self._twin: Subject | None = None
        self._stopped, self._thread = threading.Event(), None
        layers = [layer for layer in vectors.layers if layer]
        choices = {
            "emotions": list(vectors.emotions), "layers": [layers[0], layers[-1]],
            "middle": steered_layers(subject, vectors, None)[0], "strength": MOST_STRENGTH,
            "most": [MOST_EMOTIONS, MOST_TOKENS], "positions": list(POSITIONS), "sides": list(SIDES),
        }  # fmt: skip
        super().__init__(choices=choices, **state)
        self._check()  # what can't be run at first is the caller's error
        self.observe(lambda _: self.run(), "asked")
        self.on_msg(self._asked_to)

    def __repr__(self) -> str:
        return f"SteeringDesk({_said(self.pushes)}, layer {self.layer}, {self.positions} tokens)"

    # --- writing ---

    def run(self, wait: bool = False) -> SteeringDesk:
        """Write both texts in a thread of their own; `wait` until they are there. What is wrong is said in `error`."""
        if not _WRITING.acquire(blocking=False):
            self.error = "a text is still being written: wait for it, or press Stop at the desk that writes it"
            return self
        try:
            self._check()
            ask = self._asked()
        except Exception as problem:
            _WRITING.release()
            self.error = _words(problem)
            return self
        self._stopped.clear()
        with self.hold_sync():
            self.error, self.running, self.state = "", True, "reading the prompt"
        self._thread = threading.Thread(target=self._write, args=(ask,), daemon=True, name="steering desk")
        self._thread.start()
        return self.wait() if wait else self

    def stop(self) -> None:
        """Write no further token. What is there is read again and shown."""
        self._stopped.set()

    def wait(self, seconds: float | None = None) -> SteeringDesk:
        """Wait until the thread has finished, or for some seconds."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self

    def close(self) -> None:
        self.stop()
        super().close()

    def _check(self) -> None:
        """Raises EmolabError, with the remedy, for what can't be run."""
        if not 1 <= len(self.pushes) <= MOST_EMOTIONS:
            raise EmolabError(f"choose 1 to {MOST_EMOTIONS} emotions to push: {len(self.pushes)} are chosen")
        for name, strength in self.pushes.items():
            self.vectors.index(name)
            if not isinstance(strength, int | float) or not abs(strength) <= MOST_STRENGTH:
                raise EmolabError(f"a strength is a number from -{MOST_STRENGTH:g} to {MOST_STRENGTH:g}: {strength!r}")
        steered_layers(self.subject, self.vectors, self.layer)
        if not 1 <= self.max_tokens <= MOST_TOKENS:
            raise EmolabError(f"the desk writes 1 to {MOST_TOKENS} tokens at a time, not {self.max_tokens}")
        if len(self.text) > MOST_CHARACTERS:
            raise EmolabError(f"the prompt has {len(self.text):,} characters: the desk takes {MOST_PROMPT} tokens")
        if not self.text.strip():
            raise EmolabError("the prompt is empty: give at least one word")
        tokens = len(self.subject.tokenizer(self._prompt(), verbose=False)["input_ids"])
        room = min(MOST_PROMPT, self.subject.max_tokens - self.max_tokens)
        if tokens > room:
            raise EmolabError(
                f"the prompt has {tokens:,} tokens and there is room for {max(room, 0)}: cut it"
                + (" or write less" if room < MOST_PROMPT else "")
            )

    def _prompt(self) -> str:
        text = sound(self.text)
        return self.subject.chat(text) if self.chat else text

    def _asked(self) -> dict[str, Any]:
        """All that the thread needs, so that later changes at the desk don't reach it."""
        how = "greedy" if self.greedy else f"seed {self.seed}"
        return {
            "text": self._prompt(), "pushes": dict(self.pushes), "layer": self.layer,
            "positions": POSITIONS[self.positions], "max_new_tokens": self.max_tokens,
            "seed": None if self.greedy else self.seed, "code": self._call(),
            "note": f"; {self.subject.plain}" if self.chat and self.subject.plain else "",
            "where": f"{_said(self.pushes)}; layer {self.layer}, {self.positions} tokens, {how}",
        }  # fmt: skip

    def _write(self, ask: dict[str, Any]) -> None:
        """The thread: write, read again, show."""
        error, code, where, note = "", *(ask.pop(name) for name in ("code", "where", "note"))
        try:
            self._twin = self._twin or own_hooks(self.subject)
            prompt, both, looked = len(self._twin.encode(ask["text"])), None, 0.0
            with closing(side_by_side(self._twin, self.vectors, **ask)) as steps:
                for both in steps:
                    if self._stopped.is_set():
                        break
                    if time.monotonic() - looked > PAUSE:
                        self._look(both, prompt, ask["max_new_tokens"])
                        looked = time.monotonic()
            self.state = "reading both again"
            emotions = tuple(ask["pushes"])
            self.written = read_again(self._twin, self.vectors, both, prompt, emotions)
            self._emotions = emotions
            with self.hold_sync():
                self.shown = self.shown if self.shown in emotions else emotions[0]
                self._cut, self._where, self._note = self._stopped.is_set(), where, note
                self.view, self.code = self._payload(), code
        except Exception as problem:  # in a thread nobody else would see it
            error = _words(problem)
        finally:
            _WRITING.release()
            with self.hold_sync():
                self.error, self.running, self.state = error, False, ""

    def _look(self, both: Both, prompt: int, most: int) -> None:
        """Send what is written so far, without colours."""
        decode = self._twin.tokenizer.decode
        parts = [(ids[:prompt], ids[prompt:]) for ids in (both.plain, both.steered)]
        sides = [
            {"title": title, "tokens": [visible(decode(list(part))) for part in two], "prompt": 1}
            for title, two in zip(SIDES, parts, strict=True)
        ]
        done = max(len(both.plain), len(both.steered)) - prompt
        with self.hold_sync():
            self.view, self.state = {"sides": sides}, f"writing, {done} of at most {most} tokens"

    def _payload(self) -> dict[str, Any]:
        """The view for the front end: tokens as JSON, scores as bytes, row by row."""
        return {
            "emotions": list(self._emotions),
            "scale": SD_RANGE,
            "caption": self.caption,
            "sides": [
                {
                    "title": title,
                    "tokens": [visible(token) for token in side.tokens],
                    "prompt": side.prompt,
                    "pushed": [bool(one) for one in side.pushed],
                    "scores": np.ascontiguousarray(side.scores, np.float32).tobytes(),
                    "figures": {n: x if np.isfinite(x) else None for n, x in side.figures(self._emotions).items()},
                }
                for title, side in zip(SIDES, self.written, strict=True)
            ],
        }

    @property
    def caption(self) -> str:
        """How the colours on display are to be read."""
        v = self.vectors
        return (
            f"{'Stopped. ' if self._cut else ''}Both texts read again without any push: score in sd of neutral tokens, "
            f"layer {v.chosen_layer}, {v.metric}s{self._note}"
        )

    # --- showing ---

    def freeze(self) -> Frozen:
        """What is on display, as HTML that needs neither kernel nor script."""
        return Frozen(
            desk_twin(self._where or self._asked()["where"], self.caption, self.written, self._emotions, self.shown)
        )

    def _asked_to(self, _widget: Any, content: Any, _buffers: Any) -> None:
        do = content.get("do") if isinstance(content, dict) else None
        if do == "stop":
            self.stop()
        elif do == "freeze":
            self._show_frozen()

    def _call(self) -> str:
        """The call that makes the same texts."""
        said = {
            "text": self.text, "chat": self.chat, "layer": self.layer, "positions": self.positions,
            "greedy": self.greedy, "seed": self.seed, "max_tokens": self.max_tokens,
        }  # fmt: skip
        given = ",\n".join(f"    {name}={value!r}" for name, value in said.items())
        return f"el.steering_desk(\n    subject,\n    vectors,\n    {dict(self.pushes)!r},\n{given},\n).freeze()"


def steering_desk(
    subject: Subject,
    vectors: EmotionVectors,
    pushes: dict[str, float] | None = None,
    text: str = TEXT,
    *,
    chat: bool = False,
    layer: int | None = None,
    positions: str = "all",
    greedy: bool = False,
    seed: int = 0,
    max_tokens: int = 40,
    run: bool = True,
) -> SteeringDesk:
    """A widget to push emotions while a model writes, beside what it writes without the push.

    Parameters
    ----------
    pushes : strengths by emotion, in mean residual norms, as in `steer`.
    text, chat : what to write on from, as it is or as a user's message.
    layer, positions : where to push, default the middle layer and all tokens.
    greedy, seed : the likeliest token each time, or drawn; both texts are drawn with the same random numbers.
    run : write a first pair at once (and wait for it), so that the notebook holds one.

    Raises EmolabError for vectors of another model, unknown names, or what can't be run.
    """
    vectors.check(subject)
    if positions not in POSITIONS:
        raise EmolabError(f"positions at the desk are {', '.join(POSITIONS)}; got {positions!r}")
    usual = "happy" if "happy" in vectors.emotions else vectors.emotions[0]
    desk = SteeringDesk(
        subject, vectors, text=text, chat=chat, pushes=dict(pushes or {usual: 0.4}), positions=positions, greedy=greedy,
        layer=steered_layers(subject, vectors, layer)[0], seed=seed, max_tokens=max_tokens,
    )  # fmt: skip
    if run:
        desk.run(wait=True)
        if desk.error:
            raise EmolabError(desk.error)
    return desk


def _said(pushes: dict[str, float]) -> str:
    return ", ".join(f"{name} {strength:+g}" for name, strength in pushes.items())


def _words(problem: Exception) -> str:
    return str(problem) if isinstance(problem, EmolabError) else f"{type(problem).__name__}: {problem}"
