"""`watch_chat()`: a chat whose margin shows watched emotions as they come, with thresholds and alarms.

A thread writes the replies, on a twin of the model that shares all weights; `watch_chat.js` is the front end,
`watch_view.py` what is shown. Calibration and alarms are those of `watch.py`.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import torch
import traitlets as t
from transformers import StoppingCriteria

from emolab.errors import EmolabError
from emolab.model import Subject
from emolab.readout import check_chat
from emolab.vectors import EmotionVectors
from emolab.watching.watch import Watch
from emolab.watching.watched import COLOURS, Watched
from emolab.widgets import front
from emolab.widgets.lab_view import SD_RANGE, sound, visible
from emolab.widgets.live import LiveWidget
from emolab.widgets.twin import Frozen
from emolab.widgets.watch_view import chat_twin
from emolab.writing import own_hooks

MOST_EMOTIONS, MOST_TOKENS, MOST_CHARACTERS = 6, 200, 20_000
PAUSE = 0.08  # seconds between two looks at a reply that is being written
TEXT = "I have tried everything, the deadline is in an hour, and nothing works. What can I do?"
USUAL = ("desperate", "angry", "afraid", "happy")
_WRITING = threading.Lock()  # one reply at a time, whatever the number of chats


class WatchChat(LiveWidget):
    """The live chat; made by `watch_chat()`. Set its traits and call `send()` to drive it from Python.

    text : the next message of the user; `messages` are those before it, replies included
    shown : the emotion that colours the tokens
    max_tokens, seed : how to write; a seed below 0 is greedy
    running, error, state : what it is doing; `watched` holds what was seen in the chat so far
    """

    _esm = front("common.js", "watch_chat.js")
    _css = front("prompt_lab.css", "watch_chat.css")

    text = t.Unicode("").tag(sync=True)
    messages = t.List().tag(sync=True)
    shown = t.Unicode("").tag(sync=True)
    max_tokens = t.Int(60).tag(sync=True)
    seed = t.Int(-1).tag(sync=True)
    asked = t.Int(0).tag(sync=True)  # the front end counts its messages
    running = t.Bool(False).tag(sync=True)
    state = t.Unicode("").tag(sync=True)
    error = t.Unicode("").tag(sync=True)
    view = t.Dict().tag(sync=True)
    choices = t.Dict().tag(sync=True)

    def __init__(self, watch: Watch, **state: Any):
        self.watch = watch
        self.watched: Watched | None = None
        self._twin: Watch | None = None
        self._stopped, self._thread = threading.Event(), None
        choices = {"emotions": list(watch.emotions), "colours": list(COLOURS), "most": MOST_TOKENS, "scale": SD_RANGE}
        super().__init__(choices=choices, shown=watch.emotions[0], **state)
        if self.messages:
            self._show(watch.read(check_chat(self.messages)))
        self.observe(lambda _: self.send(), "asked")
        self.on_msg(self._asked_to)

    def __repr__(self) -> str:
        return f"WatchChat({', '.join(self.watch.emotions)}, {len(self.messages)} messages)"

    def send(self, text: str | None = None, wait: bool = False) -> WatchChat:
        """Send the user's message and write the reply in a thread; what is wrong is said in `error`."""
        if not _WRITING.acquire(blocking=False):
            self.error = "a reply is still being written: wait for it, or press Stop at the chat that writes it"
            return self
        try:
            said = sound(self.text if text is None else text)
            messages = [*self.messages, {"role": "user", "content": said}]
            prompt = self._prompt(messages)
        except Exception as problem:
            _WRITING.release()
            self.error = _words(problem)
            return self
        self._stopped.clear()
        with self.hold_sync():
            self.error, self.running, self.state = "", True, "reading"
        how = {"max_new_tokens": self.max_tokens, "seed": None if self.seed < 0 else self.seed}
        self._thread = threading.Thread(
            target=self._write, args=(messages, prompt, how), daemon=True, name="watch chat"
        )
        self._thread.start()
        return self.wait() if wait else self

    def stop(self) -> None:
        """Write no further token."""
        self._stopped.set()

    def wait(self, seconds: float | None = None) -> WatchChat:
        """Wait until the thread has finished, or for some seconds."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self

    def close(self) -> None:
        self.stop()
        super().close()

    def _prompt(self, messages: list[dict]) -> str:
        """The chat as the model gets it. Raises EmolabError, with the remedy, for what can't be sent."""
        said = messages[-1]["content"]
        if not said.strip():
            raise EmolabError("the message is empty: write at least one word")
        if len(said) > MOST_CHARACTERS:
            raise EmolabError(f"the message has {len(said):,} characters: {MOST_CHARACTERS:,} is the most")
        if not 1 <= self.max_tokens <= MOST_TOKENS:
            raise EmolabError(f"a reply has 1 to {MOST_TOKENS} tokens, not {self.max_tokens}")
        subject = self.watch.subject
        prompt = subject.chat(check_chat(messages))
        tokens = len(subject.tokenizer(prompt, verbose=False)["input_ids"])
        room = subject.max_tokens - self.max_tokens
        if tokens > room:
            raise EmolabError(f"the chat has {tokens:,} tokens and there is room for {max(room, 0):,}: start a new one")
        return prompt

    def _write(self, messages: list[dict], prompt: str, how: dict[str, Any]) -> None:
        """The thread: write, watching, and show what comes."""
        error = ""
        try:
            if self._twin is None:
                self._twin = self.watch.on(own_hooks(self.watch.subject))
            looked = 0.0
            live = self._twin.live(chat=messages, on_token=lambda row: look())

            def look() -> None:
                nonlocal looked
                if time.monotonic() - looked > PAUSE:
                    self._show(live.result(), f"writing, at most {how['max_new_tokens']} tokens")
                    looked = time.monotonic()

            with live:
                reply = self._twin.subject.generate(prompt, stopping_criteria=[live, _Stop(self._stopped)], **how)
            with self.hold_sync():
                self.messages = [*messages, {"role": "assistant", "content": reply}] if reply.strip() else messages
                self.text = ""
                self._show(live.result())
        except Exception as problem:  # in a thread nobody else would see it
            error = _words(problem)
        finally:
            _WRITING.release()
            with self.hold_sync():
                self.error, self.running, self.state = error, False, ""

    def _show(self, seen: Watched, state: str = "") -> None:
        with self.hold_sync():
            self.watched, self.state = seen, state
            self.view = payload(seen)

    def freeze(self) -> Frozen:
        """What is on display, as HTML that needs neither kernel nor script."""
        return Frozen(chat_twin(self.watched, self.watch.emotions, self.shown))

    def _asked_to(self, _widget: Any, content: Any, _buffers: Any) -> None:
        do = content.get("do") if isinstance(content, dict) else None
        if do == "stop":
            self.stop()
        elif do == "freeze":
            self._show_frozen()
        elif do == "clear" and not self.running:
            with self.hold_sync():
                self.messages, self.view, self.error, self.watched = [], {}, "", None


class _Stop(StoppingCriteria):
    """Ends a generation when an event is set."""

    def __init__(self, event: threading.Event):
        self.event = event

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), self.event.is_set(), device=input_ids.device, dtype=torch.bool)


def payload(seen: Watched) -> dict[str, Any]:
    """The view for the front end: tokens as JSON, running means as bytes, row by row."""
    return {
        "tokens": [visible(token) for token in seen.tokens],
        "speakers": list(seen.speakers),
        "means": np.ascontiguousarray(seen.means, np.float32).tobytes(),
        "thresholds": list(seen.thresholds.alarm.values()),
        "alarms": [
            {
                "emotion": a.emotion, "start": a.start, "end": a.end,
                "said": visible(str(a)), "words": visible(seen.words(a)),
            }
            for a in seen.alarms
        ],
        "verdict": visible(seen.verdict()),
    }  # fmt: skip


def watch_chat(
    subject: Subject,
    vectors: EmotionVectors,
    emotions: list[str] | None = None,
    messages: list[dict] | None = None,
    *,
    text: str = TEXT,
    false_alarm: float = 0.05,
    max_tokens: int = 60,
    seed: int | None = None,
    run: bool = True,
) -> WatchChat:
    """A widget to chat with a model while some emotions are watched, on the user's words and on the model's.

    Parameters
    ----------
    emotions : one to six to watch; default desperate, angry, afraid and happy, as far as the vectors hold them.
    messages : a chat to begin with, which is watched at once; without one, `text` is sent (if `run`).
    false_alarm : the share of neutral chats in which one emotion may raise an alarm by mistake.
    seed : draw the replies; greedy without one.

    Raises EmolabError for vectors of another model, unknown names, or what can't be sent.
    """
    chosen = emotions or [name for name in USUAL if name in vectors.emotions] or list(vectors.emotions[:4])
    if not 1 <= len(set(chosen)) <= MOST_EMOTIONS:
        raise EmolabError(f"watch 1 to {MOST_EMOTIONS} emotions in a chat: {len(set(chosen))} are chosen")
    watch = Watch(subject, vectors, chosen, false_alarm=false_alarm)
    begun = bool(messages)
    chat = WatchChat(
        watch, text="" if begun else text, messages=list(messages or []), max_tokens=max_tokens,
        seed=-1 if seed is None else seed,
    )  # fmt: skip
    if run and not begun:
        chat.send(wait=True)
        if chat.error:
            raise EmolabError(chat.error)
    return chat


def _words(problem: Exception) -> str:
    return str(problem) if isinstance(problem, EmolabError) else f"{type(problem).__name__}: {problem}"
