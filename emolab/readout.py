"""`Readout`: which emotions a model represents at each token of a text. One forward pass, any view of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from emolab.activations import check_layers, read
from emolab.directions import METRICS
from emolab.errors import unknown
from emolab.model import Subject
from emolab.vectors import EmotionVectors

UNITS = ("sd", "raw", "cosine")


@dataclass(frozen=True)
class Readout:
    """The residual stream of one text, seen through emotion vectors.

    text, tokens : the text and its tokens as text
    hidden : [layer, token, d_model] float32, layers as in `vectors.layers`
    vectors : what it is read with
    """

    text: str
    tokens: tuple[str, ...]
    hidden: np.ndarray
    vectors: EmotionVectors

    def scores(
        self,
        emotions: list[str] | str | None = None,
        layer: int | None = None,
        metric: str | None = None,
        unit: str = "sd",
    ) -> pd.DataFrame:
        """[token, emotion] scores, after the mean of neutral tokens is taken off.

        unit : 'sd', in standard deviations of that emotion's score on neutral tokens; 'raw', the projection;
            'cosine', the cosine with the direction. Token 0 is NaN: its activations are unlike all others.
        """
        if unit not in UNITS:
            raise unknown("unit", unit, UNITS)
        names = [emotions] if isinstance(emotions, str) else list(emotions or self.vectors.emotions)
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

    def top(self, k: int = 10, tokens: slice = slice(None), **view) -> pd.Series:
        """The k emotions with the highest mean score over some tokens (default: all but the first)."""
        return self.scores(**view).iloc[tokens].mean().nlargest(k).rename("mean score")

    def figure(self, emotions: list[str], **view):
        """Tracks of chosen emotions over the tokens."""
        from emolab.plots import token_tracks

        return token_tracks(self.scores(emotions, **view), view.get("unit", "sd"))


def readout(subject: Subject, vectors: EmotionVectors, text: str) -> Readout:
    """Read a text with emotion vectors.

    Raises EmolabError for vectors of another model, an empty text, or one beyond the context window.
    """
    vectors.check(subject)
    hidden = read(subject, text, check_layers(subject, vectors.layers))
    return Readout(text, token_texts(subject, text), hidden, vectors)


def token_texts(subject: Subject, text: str) -> tuple[str, ...]:
    """The tokens as pieces of the text; special tokens by their names."""
    ids = subject.encode(text)
    return tuple(subject.tokenizer.decode([i]) for i in ids)
