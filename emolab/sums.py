"""What is kept of a corpus while it is read: sums that add up, however many stories there are, and a sample.

Reading in pieces, on one machine or on many, and adding the pieces gives what reading at once gives.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from emolab.activations import Means
from emolab.data import Story, Survey
from emolab.directions import Fit, Labelled, fit_sums

ARRAYS = ("cells", "sums", "squares", "norms")


@dataclass(frozen=True)
class Kept:
    """A story of the sample, its mean [layer, d_model] and its weight in the sums."""

    story: Story
    mean: np.ndarray
    weight: float


@dataclass
class Sums:
    """Sums over the stories read so far, and those of the sample one by one.

    corpus : the survey, whose emotions and parts are the names along the axes
    cells : [emotion, part] sum of weights
    sums : [emotion + part, layer, d_model] weighted sum of the means of each emotion's stories, then of each part's
    squares : [layer, d_model, d_model] weighted sum of the means' outer products
    norms : [layer] sum of the mean lengths of the residual stream
    n, tokens : stories, and their tokens in all
    sample : by key
    """

    corpus: Survey
    cells: np.ndarray
    sums: np.ndarray
    squares: np.ndarray
    norms: np.ndarray
    n: int = 0
    tokens: int = 0
    sample: dict[bytes, Kept] = field(default_factory=dict)

    @classmethod
    def empty(cls, corpus: Survey, n_layers: int, d_model: int) -> Sums:
        """Nothing read yet."""
        shape = len(corpus.emotions), len(corpus.parts)
        return cls(
            corpus,
            cells=np.zeros(shape),
            sums=np.zeros((sum(shape), n_layers, d_model)),
            squares=np.zeros((n_layers, d_model, d_model)),
            norms=np.zeros(n_layers),
        )

    def add(self, stories: Sequence[Story], means: Means, pooling: str = "story") -> None:
        """Add stories that have been read; each counts once, or as often as it has tokens ('token')."""
        weights = np.ones(len(stories)) if pooling == "story" else means.tokens.astype(float)
        emotion = np.array([self.corpus.emotions.index(story.emotion) for story in stories], int)
        part = np.array([self.corpus.parts.index(story.part) for story in stories], int)
        np.add.at(self.cells, (emotion, part), weights)
        for row in range(len(self.squares)):  # one layer at a time: float64 takes room
            each = means.means[:, row].astype(np.float64)  # [text, d_model]
            weighted = each * weights[:, None]
            np.add.at(self.sums[:, row], emotion, weighted)
            np.add.at(self.sums[:, row], len(self.cells) + part, weighted)
            self.squares[row] += each.T @ weighted
        self.norms += means.norms.sum(0, dtype=np.float64)
        self.n += len(stories)
        self.tokens += int(means.lengths.sum())
        for story, mean, weight in zip(stories, means.means, weights, strict=True):
            if story.key in self.corpus.sample:
                self.sample[story.key] = Kept(story, np.array(mean), float(weight))

    def merge(self, other: Sums) -> None:
        """Add what another has read of the same corpus."""
        for name in (*ARRAYS, "n", "tokens"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.sample |= other.sample

    def fit(self, row: int) -> Fit:
        """Vectors and metric at one position of the layer axis, from all stories."""
        return fit_sums(self.corpus.emotions, self.cells, self.sums[:, row], self.squares[row], self.n)

    def kept(self) -> list[Kept]:
        """The sample, by emotion and part."""
        return sorted(self.sample.values(), key=lambda kept: (kept.story.emotion, kept.story.part, kept.story.key))

    def labelled(self, row: int) -> Labelled:
        """The sample at one position of the layer axis."""
        kept = self.kept()
        return labelled([each.story for each in kept], np.stack([each.mean[row] for each in kept]))

    def save(self, path: Path) -> None:
        """Write all but the survey as a safetensors file."""
        kept = self.kept()
        arrays = {name: getattr(self, name) for name in ARRAYS}
        arrays["means"] = np.stack([each.mean for each in kept]) if kept else np.zeros((0, *self.sums.shape[1:]))
        arrays["weights"] = np.array([each.weight for each in kept])
        head = {"n": self.n, "tokens": self.tokens, "sample": [asdict(each.story) for each in kept]}
        save_file(arrays, path, {"sums": json.dumps(head)})

    @classmethod
    def load(cls, path: Path, corpus: Survey) -> Sums:
        """What `save` has written while this corpus was read."""
        with safe_open(path, "numpy") as file:
            head = json.loads(file.metadata()["sums"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        means, weights = arrays.pop("means"), arrays.pop("weights")
        stories = [Story(**story) for story in head.pop("sample")]
        kept = [Kept(*each) for each in zip(stories, means, weights.tolist(), strict=True)]
        return cls(corpus, **arrays, **head, sample={each.story.key: each for each in kept})


def labelled(stories: Sequence[Story], means: np.ndarray) -> Labelled:
    """Means [text, d_model] of one layer with the stories' labels."""
    return Labelled(means, np.array([story.emotion for story in stories]), np.array([story.part for story in stories]))
