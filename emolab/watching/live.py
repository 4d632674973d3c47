"""`Live`: a monitor beside a model that writes. A hook catches the residual stream, so nothing is computed twice."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import StoppingCriteria

from emolab.errors import EmolabError
from emolab.model import Subject
from emolab.watching.log import LogWriter
from emolab.watching.scores import Gauge, lay_out, special_ids
from emolab.watching.thresholds import Thresholds
from emolab.watching.watched import Alarm, Track, Watched, walk

PROMPT, WRITTEN = "prompt", "written"


class Live(StoppingCriteria):
    """What `Watch.live()` makes: open it, pass it to one generation, look at `result()`.

    The token written last is never fed back into the model, so it has no score. `track` holds what was seen so far.
    """

    def __init__(
        self,
        subject: Subject,
        gauge: Gauge,
        thresholds: Thresholds,
        *,
        chat: list[dict] | None = None,
        on_alarm: Callable[[Alarm], None] | None = None,
        on_token: Callable[[dict], None] | None = None,
        stop: bool = False,
        log: str | Path | None = None,
    ):
        self.subject, self.gauge = subject, gauge
        self.track = Track(thresholds)
        self.on_alarm, self.on_token, self.stop, self.log = on_alarm, on_token, stop, log
        self._laid = None if chat is None else lay_out(subject, chat)
        self._places: list[tuple[str, bool]] = []
        self._special = special_ids(subject)
        self._scores: list[np.ndarray] = []  # [emotion] each, caught and not looked at yet or done
        self._seen = 0  # tokens that the key-value cache held before this pass
        self._given = 0  # tokens of the prompt
        self._handles: list = []
        self._writer: LogWriter | None = None

    # --- the hook ---

    def __enter__(self) -> "Live":
        if self._handles or self._scores:
            raise EmolabError("a live watch follows one generation: make another with watch.live()")
        if self.log is not None:
            self._writer = LogWriter(self.log, self.track.thresholds)
        block = self.subject.blocks[self.gauge.layer - 1]
        self._handles = [self.subject.model.register_forward_pre_hook(self._before, with_kwargs=True)]
        self._handles.append(block.register_forward_hook(self._after))
        return self

    def __exit__(self, kind, error, trace) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        done = len(self.track.tokens)
        end = None if kind else {"tokens": done, "alarms": len(self.track.alarms)}
        if self._writer is not None:
            self._writer.close(end)
        if kind is None and self._scores and not done:
            raise EmolabError(
                "the model ran, but the watch was not asked: pass it on, as in generate(..., stopping_criteria=[live])"
            )

    def _before(self, module, args, kwargs) -> None:
        cache, mask = kwargs.get("past_key_values"), kwargs.get("attention_mask")
        self._seen = 0 if cache is None else int(cache.get_seq_length())
        if isinstance(mask, torch.Tensor) and mask.ndim == 2 and not bool(mask[0, 0]):
            raise EmolabError("the prompt is padded: watch one text at a time, without padding")

    def _after(self, module, args, output) -> None:
        hidden = output[0] if isinstance(output, tuple) else output  # [text, token, d_model]
        if hidden.shape[0] != 1:
            raise EmolabError(
                f"a live watch follows one text, and here {hidden.shape[0]} are written at once (a batch, or beams): "
                "generate one by one"
            )
        new = len(self._scores) - self._seen  # without a cache, all but the last have been scored
        if not 0 <= new <= hidden.shape[1]:
            raise EmolabError("a live watch follows one generation: make another with watch.live()")
        self._scores.extend(self.gauge.scores(hidden[0, new:]))

    # --- called by generate() after each token that is written ---

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs) -> torch.Tensor:
        """Looks at the tokens whose scores are there; says whether to stop."""
        done = len(self.track.tokens)
        if not self._handles or len(self._scores) != input_ids.shape[1] - 1:
            raise EmolabError(
                "the watch did not see this generation: use `with watch.live() as live:` around it, and one for each"
            )
        if not done:
            self._given = len(self._scores)
            self._places = self._layout(input_ids[0, : self._given].tolist())
        raised = []
        for place, token in enumerate(input_ids[0, done : len(self._scores)].tolist(), done):
            raised += self._look(place, token)
        return torch.full((1,), bool(self.stop and raised), device=input_ids.device, dtype=torch.bool)

    def _layout(self, prompt: list[int]) -> list[tuple[str, bool]]:
        """(speaker, whether a turn begins) for each token of the prompt."""
        if self._laid is None:
            return [("", False), *[(PROMPT, False)] * (len(prompt) - 1)]
        if list(self._laid.ids) != prompt:
            raise EmolabError(
                "the prompt is not the chat that is watched: generate from subject.chat(messages), and give the same "
                "messages to live(chat=...)"
            )
        return list(walk(self._laid.turns, len(prompt)))

    def _look(self, place: int, token: int) -> list[Alarm]:
        written = "assistant" if self._laid else WRITTEN
        begins = self._laid is not None and place == self._given  # the reply is a turn of its own
        speaker, fresh = self._places[place] if place < self._given else (written, begins)
        if fresh:
            self.track.turn()
        scored = speaker and place and token not in self._special
        text = self.subject.tokenizer.decode([token], clean_up_tokenization_spaces=False)
        raised = self.track.feed(text, self._scores[place] if scored else None, speaker)
        if self._writer is not None or self.on_token is not None:
            row = self.track.row()
            if self._writer is not None:
                self._writer.write(row)
            if self.on_token is not None:
                self.on_token(row)
        for alarm in raised if self.on_alarm is not None else ():
            self.on_alarm(alarm)
        return raised

    def result(self) -> Watched:
        """What was seen, so far or in the end."""
        return self.track.watched()
