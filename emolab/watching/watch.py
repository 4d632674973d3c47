"""`Watch`: the readout as a monitor that can be left running, with a known rate of false alarms.

It says when the model's reading of chosen emotions rises, where and for how long: in a text, in a chat, and while the
model writes. It watches what is represented on the tokens; whether that is anybody's state is another question (see
`experiments/monitoring.py` for where it should not be trusted).
"""

from collections.abc import Callable, Sequence
from copy import copy
from pathlib import Path

import pandas as pd

from emolab.errors import EmolabError
from emolab.model import Subject
from emolab.vectors import EmotionVectors
from emolab.watching.live import Live
from emolab.watching.log import LogWriter
from emolab.watching.scores import WINDOW, gauge, lay_out, read_scores, special_ids
from emolab.watching.thresholds import Thresholds, calibrate, chosen, load_thresholds, save_thresholds
from emolab.watching.watched import Alarm, Track, Watched, walk


class Watch:
    """A monitor of some emotions in one model.

    >>> watch = Watch(subject, vectors, ["desperate", "angry"])                           # doctest: +SKIP
    >>> watch.read("I have tried everything and nothing works.").alarms                   # doctest: +SKIP
    >>> with watch.live(on_alarm=print, stop=True, log="watch.jsonl") as live:            # doctest: +SKIP
    ...     subject.generate("Dear diary,", stopping_criteria=[live])

    Parameters
    ----------
    emotions : names in the vectors, those of concepts of your own among them (`concept(...).joined()`).
    false_alarm : the share of neutral *texts* that may raise an alarm, for each emotion. Alarms are about running
        means; a single token stands out where its own score is beyond what this share of neutral *tokens* reaches.
    layer : which to watch, default the layer that the vectors are read at.
    window : tokens of the running mean.
    neutral : texts to calibrate on, default emolab's 320; two in three set the thresholds, the others test them.
    thresholds : made before, by `save()`: a file, or a Thresholds. They bring their own rate, layer and window.

    Plain texts and chats have thresholds of their own, made when they are first needed and kept in the cache folder.

    Raises
    ------
    EmolabError : vectors of another model, an unknown emotion, no emotion, a rate that so few neutral texts can't
        calibrate, thresholds of another model or other vectors.
    """

    def __init__(
        self,
        subject: Subject,
        vectors: EmotionVectors,
        emotions: Sequence[str] | str | None = None,
        *,
        false_alarm: float = 0.01,
        layer: int | None = None,
        window: int = WINDOW,
        neutral: Sequence[str] | None = None,
        thresholds: str | Path | Thresholds | None = None,
    ):
        vectors.check(subject)
        made = _made_before(thresholds, vectors)
        if emotions is None and made:
            emotions = next(iter(made.values())).emotions
        names = [emotions] if isinstance(emotions, str) else list(dict.fromkeys(emotions or ()))
        if not names:
            raise EmolabError('say what to watch: Watch(subject, vectors, ["desperate", "angry"])')
        if window < 1:
            raise EmolabError(f"the running mean needs at least one token: window={window}")
        self.subject, self.vectors, self.emotions = subject, vectors, tuple(names)
        self._made = {kind: chosen(one, names) for kind, one in made.items()}
        for one in self._made.values():
            layer, window, false_alarm = one.layer, one.window, one.false_alarm
        self.gauge = gauge(vectors, names, layer)
        self.false_alarm, self.layer, self.window, self._neutral = false_alarm, self.gauge.layer, window, neutral
        self._special = special_ids(subject)
        if not made:
            self.thresholds()

    def __repr__(self) -> str:
        return (
            f"Watch({', '.join(self.emotions)}; false alarms at most {self.false_alarm:g} of neutral texts, "
            f"{self.vectors.info['model']}, layer {self.layer})"
        )

    def on(self, subject: Subject) -> "Watch":
        """The same watch over another copy of the model, such as one with hooks of its own."""
        self.thresholds("chat")
        twin = copy(self)
        twin.subject = subject
        return twin

    def thresholds(self, kind: str = "plain") -> Thresholds:
        """The thresholds for 'plain' texts or for a 'chat', made if they are not there yet."""
        if kind not in self._made:
            self._made[kind] = calibrate(
                self.subject, self.vectors, self.emotions, self.false_alarm,
                layer=self.layer, kind=kind, window=self.window, neutral=self._neutral,
            )  # fmt: skip
        return self._made[kind]

    def false_alarms(self, kind: str = "plain") -> pd.DataFrame:
        """[emotion] what was asked for and what neutral texts show that set no threshold. See `Thresholds.table`."""
        return self.thresholds(kind).table()

    def save(self, path: str | Path) -> Path:
        """Write the thresholds made so far, as JSON, with what they were made of."""
        return save_thresholds(path, *self._made.values())

    def read(self, text: str | list[dict], log: str | Path | None = None) -> Watched:
        """Watch a finished text or a chat (a list of `{"role": ..., "content": ...}`).

        Raises EmolabError for an empty text, one beyond the context window, a malformed chat, a log that can't be
        written.
        """
        laid = lay_out(self.subject, text)
        thresholds = self.thresholds("plain" if isinstance(text, str) else "chat")
        ((scores,),) = read_scores(self.subject, [laid.ids], self.gauge)  # [token, emotion]
        track = Track(thresholds)
        writer = None if log is None else LogWriter(log, thresholds)
        try:
            places = walk(laid.turns, len(laid.ids))
            for token, piece, row, (speaker, fresh) in zip(laid.ids, laid.tokens, scores, places, strict=True):
                if fresh:
                    track.turn()
                track.feed(piece, row if speaker and token not in self._special else None, speaker)
                if writer is not None:
                    writer.write(track.row())
        except BaseException:
            if writer is not None:
                writer.close()
            raise
        if writer is not None:
            writer.close({"tokens": len(track.tokens), "alarms": len(track.alarms)})
        return track.watched()

    def live(
        self,
        *,
        chat: list[dict] | str | None = None,
        on_alarm: Callable[[Alarm], None] | None = None,
        on_token: Callable[[dict], None] | None = None,
        stop: bool = False,
        log: str | Path | None = None,
    ) -> Live:
        """A watch over one generation: `with watch.live() as live: generate(..., stopping_criteria=[live])`.

        Parameters
        ----------
        chat : the messages that the prompt is made of (`subject.chat(messages)`), or one of the user's; then turns
            are told apart and the thresholds are those of chats.
        on_alarm, on_token : called with each alarm as it is raised, and with each token as it is logged.
        stop : end the generation at the first alarm (the token after it has been written by then).
        log : a file of JSON lines, each on disk at once; see `watching.log.read_log`.

        Works with and without a key-value cache, and beside `steer`, which must be opened first to be seen at the
        same layer. Raises EmolabError for a malformed chat; within the generation for more than one text at once, or
        a second generation; at the end if the model ran and the watch was not passed on.
        """
        messages = [{"role": "user", "content": chat}] if isinstance(chat, str) else chat
        thresholds = self.thresholds("plain" if messages is None else "chat")
        return Live(
            self.subject,
            self.gauge,
            thresholds,
            chat=messages,
            on_alarm=on_alarm,
            on_token=on_token,
            stop=stop,
            log=log,
        )


def _made_before(source: str | Path | Thresholds | None, vectors: EmotionVectors) -> dict[str, Thresholds]:
    """{kind: thresholds}, checked against the vectors."""
    if source is None:
        return {}
    found = {source.kind: source} if isinstance(source, Thresholds) else load_thresholds(source)
    for one in found.values():
        one.check(vectors)
    return found
