"""One passage and the event in it: where an emotion begins and ends, and how long its score outlives the end there.

`persistence.py` makes its statistics from many of these; `read_passage()` makes one from a text of your own. One
passage is one draw: its half-life is as noisy as its tokens are, and the yardsticks beside it say how noisy that is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from emolab.decay import AFTER, LEAST, STAY, event_locked, in_tokens, life, life_row
from emolab.errors import EmolabError, unknown
from emolab.model import Subject
from emolab.tracks import EMOTION, NULLS, Tracks, first_token, record, upright
from emolab.vectors import EmotionVectors

GONE, HELD = "as if gone at once", "as if it lasted"
MARK = "|"


@dataclass(frozen=True)
class Event:
    """A stretch of a text in one state: tokens start..end - 1, then `into` another state up to stop - 1."""

    text: int
    emotion: str
    start: int
    end: int
    stop: int
    into: str


@dataclass(frozen=True)
class Passage:
    """One text's scores along the emotion of its event, and along that emotion's nulls.

    tracks, event : what was read; `tracks.scores[event.text]`
    tokens : [token] the pieces of the text
    """

    tracks: Tracks
    event: Event
    tokens: tuple[str, ...] = ()

    def of(self, emotion: str) -> "Passage":
        """The same event seen along another emotion that was read. Raises EmolabError if it was not."""
        if emotion not in self.tracks.emotions:
            raise unknown("emotion", emotion, self.tracks.emotions)
        return replace(self, event=replace(self.event, emotion=emotion))

    @cached_property
    def scores(self) -> np.ndarray:
        """[token, variant] scores in sd of neutral tokens; nulls turned to point up during the event."""
        track = self.tracks.scores[self.event.text][:, :, self.tracks.emotions.index(self.event.emotion)].astype(float)
        return track * upright(self.tracks.kinds, self._within(track).mean(0))

    @property
    def level(self) -> np.ndarray:
        """[variant] mean score within the event."""
        return self._within(self.scores).mean(0)

    def _within(self, track: np.ndarray) -> np.ndarray:
        return track[max(self.event.start, 1) : self.event.end]  # token 0 is unlike all others

    @property
    def parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """[token, variant] scores before, within and after the event, without token 0."""
        start, end, stop = self.event.start, self.event.end, self.event.stop
        return tuple(np.split(self.scores[1:stop], [max(start - 1, 0), end - 1]))

    def lives(self, stay: int = STAY) -> tuple[list[dict], list[np.ndarray]]:
        """Rows for each variant and both yardsticks, as in `Persistence.lives`, and [token] what they are taken from.

        The yardsticks are judged by the emotion's own half: GONE on the passage's opening, HELD on the event's own
        tokens. A passage without an opening has none.
        """
        (opening, within, after), level = self.parts, self.level
        before = opening.mean(0) if len(opening) else np.full(len(level), np.nan)
        found = [(kind, after[:, i], i) for i, kind in enumerate(self.tracks.kinds)]
        if len(opening):
            found += [(GONE, opening[:, 0], 0), (HELD, within[:, 0], 0)]
        same = {"emotion": self.event.emotion, "into": self.event.into}
        rows = [
            same | {"kind": kind, "before": before[i], "after": curve.mean()} | life(curve, level[i], stay)
            for kind, curve, i in found
        ]
        return rows, [event_locked(curve, 0, 0, AFTER) for _, curve, _ in found]

    def table(self) -> pd.DataFrame:
        """A row for the emotion, both yardsticks and each null: mean score before, within and after [sd], half-life
        [tokens; inf: not reached, NaN: did not rise], and the share of its directions that rose."""
        lives = pd.DataFrame(self.lives()[0])
        rows = {}
        for kind in dict.fromkeys((EMOTION, GONE, HELD, *NULLS)):
            if len(here := lives[lives.kind == kind]):
                rows[kind] = {"before": here.before.mean(), "within": here.level.mean(), "after": here.after.mean()}
                rows[kind] |= {name: life_row(here)[name] for name in ("half_life", "rose")}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("direction")

    @property
    def fallen(self) -> int | None:
        """The token at which the emotion's score has fallen to half for good; None if it did not rise or fall."""
        tokens = life(self.parts[2][:, 0], self.level[0])
        return self.event.end + tokens["tokens"] - 1 if tokens["reached"] else None

    def figure(self):
        """The score token by token, the event, half of its level, and where the score has fallen to it."""
        from emolab.brevity_plots import passage_figure

        return passage_figure(self)

    def verdict(self) -> str:
        """The answer for this passage in plain words."""
        table, name = self.table(), self.event.emotion
        own, null = table.loc[EMOTION], table.loc[NULLS[1]]
        said = (
            f"In {self.tracks.model} (layer {self.tracks.layer}) {name} averages {own.within:.2f} sd within the event"
        )
        said += "." if np.isnan(own.before) else f", {own.before:.2f} before it and {own.after:.2f} after it."
        if not own.rose:
            return f"{said} That is less than {LEAST:g} sd above neutral: nothing rose, so nothing can fall."
        said += f" Half of it is {own.within / 2:.2f} sd. "
        if np.isinf(own.half_life):
            said += "The score is never at or below it for five tokens in a row: the half-life is not reached."
        else:
            said += (
                f"Token {own.half_life:.0f} after the end is the first of five in a row at or below it: the half-life."
            )
        if GONE in table.index:
            said += (
                f" Yardsticks with the same noise, an emotion gone at once: {in_tokens(table.half_life[GONE])}; one "
                f"that lasts: {in_tokens(table.half_life[HELD])}."
            )
        if null.rose:
            said += (
                f" Of directions that mean nothing (matched variance) {null.rose:.0%} rise here, and their half-life "
                f"is {in_tokens(null.half_life)}."
            )
        return f"{said} One passage is one draw: do not rank emotions by it."


def joined(subject: Subject, parts: Sequence[str]) -> tuple[str, list[int]]:
    """The parts of a passage as one text, and the token at which each begins and the last one ends."""
    text = " ".join(parts)
    borders = [first_token(subject, text, len(" ".join(parts[:n])) + 1) for n in range(1, len(parts))]
    return text, [0, *borders, len(subject.encode(text))]


def read_passage(subject: Subject, vectors: EmotionVectors, marked: str, emotion: str, seeds: int = 10) -> Passage:
    """A text of your own, in which an emotion is switched on and off, read once along all emotions of the vectors.

    Parameters
    ----------
    marked : 'neutral | emotion | neutral', or 'emotion | neutral' without an opening.
    emotion : the one to look at; `.of()` gives others without reading again.
    seeds : directions of each null.

    Raises EmolabError for a text without marks, parts of fewer than STAY tokens, an unknown emotion, vectors of another
    model or without the story means that the nulls are made from.
    """
    vectors.index(emotion)
    parts = [part.strip() for part in marked.split(MARK)]
    if not any(parts):
        raise EmolabError(f"the text is empty: write 'neutral {MARK} emotion {MARK} neutral'")
    if len(parts) not in (2, 3):
        raise EmolabError(
            f"the text has {len(parts) - 1 or 'no'} marks {MARK}: put one where the emotion begins and one where it "
            f"ends, 'neutral {MARK} emotion {MARK} neutral', or leave out the opening, 'emotion {MARK} neutral'"
        )
    if not all(parts):
        raise EmolabError(f"part {parts.index('') + 1} is empty: write a sentence before and after each mark {MARK}")
    text, borders = joined(subject, parts)
    sizes = np.diff([1, *borders[1:]])  # token 0 is not scored
    if sizes.min() < STAY:
        raise EmolabError(
            f"part {sizes.argmin() + 1} is too short, single tokens are noisy: each part needs at least {STAY} tokens "
            f"that are scored (the first of a text is not) and this one has {sizes.min()}; write a sentence or two"
        )
    tracks = record(subject, vectors, [text], vectors.emotions, seeds)
    tokens = tuple(text[a:b] for a, b in subject.spans(text))
    return Passage(tracks, Event(0, emotion, *borders[-3:], "neutral"), tokens)
