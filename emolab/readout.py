"""`Readout`: which emotions a model represents at each token of a text. One forward pass, any view of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

import numpy as np
import pandas as pd

from emolab.activations import read
from emolab.checks import check_chat
from emolab.directions import METRICS
from emolab.errors import EmolabError, unknown
from emolab.model import Subject
from emolab.vectors import EmotionVectors

UNITS = {"sd": "score (sd of neutral tokens)", "raw": "projection", "cosine": "cosine"}


@dataclass(frozen=True)
class Turn:
    """One message of a chat: who speaks, and which tokens are theirs."""

    role: str
    tokens: slice


@dataclass(frozen=True)
class Readout:
    """The residual stream of one text, seen through emotion vectors.

    text : what was read, with the chat template around it if it was a chat
    tokens : [token] the pieces of the text; joined they give the text. A character that takes several tokens stands
        at the first of them, the others are empty
    spans : [token] (start, end) of each piece in the text, in characters
    turns : the messages, if it was a chat
    hidden : [layer, token, d_model] float32, layers as in `vectors.layers`
    vectors : what it is read with
    """

    text: str
    tokens: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    turns: tuple[Turn, ...]
    hidden: np.ndarray
    vectors: EmotionVectors

    def scores(
        self,
        emotions: Sequence[str] | str | None = None,
        layer: int | None = None,
        metric: str | None = None,
        unit: str = "sd",
    ) -> pd.DataFrame:
        """[token, emotion] scores, after the mean of neutral tokens is taken off.

        unit : 'sd', in standard deviations of that emotion's score on neutral tokens; 'raw', the projection;
            'cosine', the cosine with the direction. Token 0 is NaN: its activations are unlike all others.

        Raises EmolabError for an unknown emotion, metric or unit, or a layer that the vectors lack.
        """
        if unit not in UNITS:
            raise unknown("unit", unit, UNITS)
        names = (
            [emotions] if isinstance(emotions, str) else list(self.vectors.emotions if emotions is None else emotions)
        )
        chosen, row = [self.vectors.index(name) for name in names], self.vectors.row(layer)
        metric = metric or self.vectors.metric
        directions = self.vectors.directions(layer, metric)[chosen]  # [emotion, d_model]
        centred = self.hidden[row] - self.vectors.neutral_mean[row]  # [token, d_model]
        values = centred @ directions.T
        if unit == "sd":
            values = values / self.vectors.neutral_sd[METRICS.index(metric), chosen, row]
        elif unit == "cosine":
            values = values / np.linalg.norm(centred, axis=1)[:, None] / np.linalg.norm(directions, axis=1)
        values[0] = np.nan
        index = pd.MultiIndex.from_arrays([range(len(self.tokens)), self.tokens], names=["position", "token"])
        return pd.DataFrame(values, index=index, columns=names)

    def where(self, start: int, end: int) -> slice:
        """The tokens that hold the characters start..end of the text. Raises EmolabError if there are none."""
        return holding(self.spans, start, end)

    def top(self, k: int = 10, tokens: slice = slice(None), **view) -> pd.Series:
        """The k emotions with the highest mean score over some tokens (default: all but the first)."""
        return self.scores(**view).iloc[tokens].mean().nlargest(k).rename("mean score")

    def by_turn(self, emotions: Sequence[str] | None = None, **view) -> pd.DataFrame:
        """[turn, emotion] mean scores of each message of a chat."""
        scores = self.scores(emotions, **view)
        rows = [scores.iloc[turn.tokens].mean() for turn in self.turns]
        return pd.DataFrame(rows, index=pd.Index([turn.role for turn in self.turns], name="speaker"))

    def compare(self, other: Readout, emotions: Sequence[str] | str, **view) -> pd.DataFrame:
        """Scores of two texts side by side, aligned on the tokens that they share.

        Columns (emotion, 'this' | 'other' | 'difference'); a row for each token of either, NaN where one has none.
        """
        mine, theirs = (side.scores(emotions, **view) for side in (self, other))
        rows: list[tuple[int | None, int | None]] = []
        for kind, a, b, c, d in SequenceMatcher(None, self.tokens, other.tokens, autojunk=False).get_opcodes():
            if kind == "equal":
                rows += zip(range(a, b), range(c, d), strict=True)
            else:
                rows += [(i, None) for i in range(a, b)] + [(None, j) for j in range(c, d)]
        nothing = np.full(mine.shape[1], np.nan)
        left = np.array([nothing if i is None else mine.to_numpy()[i] for i, _ in rows])
        right = np.array([nothing if j is None else theirs.to_numpy()[j] for _, j in rows])
        tokens = [other.tokens[j] if i is None else self.tokens[i] for i, j in rows]
        sides = {"this": left, "other": right, "difference": left - right}
        return pd.DataFrame(
            {(name, side): values[:, n] for n, name in enumerate(mine) for side, values in sides.items()},
            index=pd.MultiIndex.from_arrays([range(len(rows)), tokens], names=["position", "token"]),
        )

    def figure(self, emotions: Sequence[str], **view):
        """Tracks of chosen emotions over the tokens."""
        from emolab.plots import token_tracks

        return token_tracks(self.scores(emotions, **view), UNITS[view.get("unit", "sd")])


def readout(subject: Subject, vectors: EmotionVectors, text: str | list[dict]) -> Readout:
    """Read a text, or a chat (a list of `{"role": ..., "content": ...}`), with emotion vectors.

    Raises EmolabError for vectors of another model, an empty text, one beyond the context window, or a malformed chat.
    """
    vectors.check(subject)
    messages = None if isinstance(text, str) else check_chat(text)
    text = text if messages is None else subject.chat(messages)
    hidden = read(subject, text, vectors.layers)
    spans = subject.spans(text)
    found = Readout(text, tuple(text[a:b] for a, b in spans), spans, (), hidden, vectors)
    return found if messages is None else replace(found, turns=find_turns(text, spans, messages))


def holding(spans: Sequence[tuple[int, int]], start: int, end: int) -> slice:
    """The tokens, given as (start, end) in characters, that hold start..end. Raises EmolabError if there are none."""
    inside = [i for i, (a, b) in enumerate(spans) if a < end and b > start]
    if not inside:
        raise EmolabError(f"no token holds characters {start}..{end}: the text has {spans[-1][1] if spans else 0}")
    return slice(inside[0], inside[-1] + 1)


def find_turns(text: str, spans: Sequence[tuple[int, int]], messages: list[dict]) -> tuple[Turn, ...]:
    """Each message's tokens in the templated text; a template may strip blanks, nothing else."""
    turns, place = [], 0
    for message in messages:
        content = message["content"].strip()
        start = text.find(content, place)
        if content and start >= 0:
            place = start + len(content)
            turns.append(Turn(message["role"], holding(spans, start, place)))
    return tuple(turns)
