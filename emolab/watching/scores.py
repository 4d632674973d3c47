"""Scores that a monitor watches: the residual stream at one layer along chosen directions, smoothed as it comes.

Only the past is used, so that a finished text and one that is being written get the same scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import numpy as np
import torch

from emolab.activations import brisk_attention, capture, encode_all, forward, pad, plan_batches, token_budget
from emolab.directions import METRICS
from emolab.errors import EmolabError
from emolab.model import Subject
from emolab.readout import Turn, check_chat, find_turns
from emolab.vectors import EmotionVectors

CLIP = 8.0  # sd: beyond it lie the massive activations of a few tokens in thousands, which would drown their neighbours
WINDOW = 8  # tokens of the running mean: about half a sentence; fixed before anything was measured


@dataclass(frozen=True, eq=False)
class Gauge:
    """What makes scores of the residual stream after block `layer`.

    names : of the directions
    scaled : [direction, d_model] float32 directions, divided by the sd of their scores on neutral tokens
    centre : [d_model] float32 mean over neutral tokens
    """

    layer: int
    names: tuple[str, ...]
    scaled: np.ndarray
    centre: np.ndarray

    @cached_property
    def hash(self) -> str:
        """A short hash of the directions, their scale and their zero."""
        digest = sha256(repr((self.layer, self.names)).encode())
        for array in (self.scaled, self.centre):
            digest.update(np.ascontiguousarray(array, np.float32))
        return digest.hexdigest()[:16]

    @cached_property
    def _tensors(self) -> dict[torch.device, tuple[torch.Tensor, torch.Tensor]]:
        return {}

    def scores(self, hidden: torch.Tensor) -> np.ndarray:
        """[..., direction] of hidden [..., d_model], in sd of neutral tokens, cut off at -CLIP and CLIP."""
        if hidden.device not in self._tensors:
            arrays = (np.ascontiguousarray(self.scaled.T, np.float32), np.asarray(self.centre, np.float32))
            self._tensors[hidden.device] = tuple(torch.from_numpy(array).to(hidden.device) for array in arrays)
        scaled, centre = self._tensors[hidden.device]
        return ((hidden.float() - centre) @ scaled).clamp(-CLIP, CLIP).cpu().numpy()


def gauge(vectors: EmotionVectors, emotions: Sequence[str] | None = None, layer: int | None = None) -> Gauge:
    """The gauge of some emotions (default all), by the vectors' metric, at a layer (default the chosen one).

    Raises EmolabError for an unknown emotion or a layer that can't be watched.
    """
    names = tuple(vectors.emotions if emotions is None else emotions)
    rows, row = [vectors.index(name) for name in names], vectors.row(layer)
    if vectors.layers[row] < 1:
        raise EmolabError("layer 0, the embeddings, can't be watched: choose one from 1 on")
    sd = vectors.neutral_sd[METRICS.index(vectors.metric), rows, row]
    scaled = vectors.directions(layer)[rows] / np.maximum(sd, 1e-30)[:, None]
    return Gauge(vectors.layers[row], names, scaled.astype(np.float32), vectors.neutral_mean[row].astype(np.float32))


@dataclass(frozen=True)
class Laid:
    """A text or a chat laid out in tokens, before it is read.

    turns : the stretches that are watched, each with a running mean of its own: a chat's messages, or all of a text
        but token 0, whose activations are unlike all others
    """

    text: str
    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    turns: tuple[Turn, ...]


def lay_out(subject: Subject, text: str | list[dict]) -> Laid:
    """Tokens and turns of a text or chat. Raises EmolabError for an empty or too long one, or a malformed chat."""
    messages = None if isinstance(text, str) else check_chat(text)
    text = text if messages is None else subject.chat(messages)
    ids, spans = subject.encode(text), subject.spans(text)
    last = len(ids) - (ids[-1] in special_ids(subject))  # some tokenizers end a text with a token of their own
    found = (Turn("text", slice(1, last)),) if messages is None else find_turns(text, spans, messages)
    turns = tuple(Turn(turn.role, slice(max(turn.tokens.start, 1), turn.tokens.stop)) for turn in found)
    return Laid(text, tuple(ids), tuple(text[a:b] for a, b in spans), turns)


def special_ids(subject: Subject) -> frozenset[int]:
    """Tokens that are never scored: those that mark borders, not words."""
    return frozenset(subject.tokenizer.all_special_ids) - {subject.tokenizer.unk_token_id}


def read_scores(subject: Subject, ids: Sequence[Sequence[int]], *gauges: Gauge) -> list[tuple[np.ndarray, ...]]:
    """For each text a [token, direction] array by each gauge; read in batches, down to the deepest layer needed."""
    layers = sorted({one.layer for one in gauges})
    found: list[tuple[np.ndarray, ...]] = [()] * len(ids)
    with brisk_attention(subject, ids):
        for batch in plan_batches([len(i) for i in ids], token_budget(subject)):
            input_ids, mask = pad([ids[i] for i in batch], subject.pad_id)
            at: dict[int, torch.Tensor] = {}
            with capture(subject, layers, lambda layer, hidden, at=at: at.update({layer: hidden})):
                forward(subject, input_ids, mask)
            for place, i in enumerate(batch):
                found[i] = tuple(one.scores(at[one.layer][place, : len(ids[i])]) for one in gauges)
    return found


def score_texts(subject: Subject, texts: Sequence[str], *gauges: Gauge) -> list[tuple[np.ndarray, ...]]:
    """`read_scores` of texts. Raises EmolabError, naming the text, where one can't be read."""
    return read_scores(subject, encode_all(subject, texts, 1), *gauges)


def smoothed(scores: np.ndarray, turns: Sequence[slice], window: int = WINDOW) -> np.ndarray:
    """[token, direction] mean over the last `window` tokens of the turn, NaN outside of turns.

    Before a turn begins all stands at the neutral mean, 0, so that its first tokens alone raise nothing.

    >>> smoothed(np.array([[9.0], [2.0], [4.0], [6.0]]), [slice(1, 4)], window=2).ravel().tolist()
    [nan, 1.0, 3.0, 5.0]
    """
    found = np.full(scores.shape, np.nan)
    for turn in turns:
        own = scores[turn].astype(np.float64)
        sums = np.vstack([np.zeros((window, own.shape[1])), own.cumsum(0)])  # [window + token, direction]
        found[turn] = (sums[window:] - sums[:-window]) / window
    return found
