"""Does a push towards an emotion make the model expect that emotion's word? 12 x 12, about someone else and oneself.

The claim is that of Sofroniew et al. (2026, arXiv 2604.07729; Figs 52 and 53): steered at 0.5 on the tokens of a reply
that is about to name a feeling, the matching word becomes likelier and the others do not. In our own wordings, beside
directions that have nothing of the emotions, and beside the same numbers with the emotions' names shuffled.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from emolab.activations import token_budget
from emolab.claims import Claim
from emolab.errors import EmolabError
from emolab.likelihood import next_token_logprobs
from emolab.model import Subject
from emolab.nulls import random_directions
from emolab.steering import steer, steered_layers
from emolab.vectors import EmotionVectors
from emolab.writing import direction, first_tokens

EMOTIONS = (
    "happy", "inspired", "loving", "proud", "calm", "desperate", "angry", "guilty", "sad", "afraid", "nervous",
    "surprised",
)  # fmt: skip
PROMPTS = {
    "someone else": (
        ("My neighbour has just come home. What mood is he in?", "It seems to me that he feels"),
        ("You can see her through the window. How is she doing?", "From here I would say she is feeling"),
        ("Tell me about the man at the bus stop.", "That man is clearly"),
    ),
    "oneself": (
        ("What is going on inside you at the moment?", "At the moment I feel"),
        ("How are you doing today?", "To tell the truth, today I am feeling"),
        ("Describe your mood.", "Right now I am"),
    ),
}
SOURCES = {"someone else": "Sofroniew et al. 2026, Fig 52", "oneself": "Sofroniew et al. 2026, Fig 53"}
DRAWS = 2000


@dataclass(frozen=True)
class EmotionWords:
    """Changes in the log-probability of each emotion's word under a push towards each emotion, in nats.

    changes : about whom, a [pushed emotion, word] frame, mean over the wordings
    random : about whom, [direction, word], the same for random directions without the emotions' subspace
    """

    changes: dict[str, pd.DataFrame]
    random: dict[str, np.ndarray]
    strength: float
    layer: int
    model: str
    seed: int

    def matrix(self, about: str = "someone else") -> pd.DataFrame:
        """[pushed emotion, word] change of the log-probability."""
        return self.changes[about]

    def table(self) -> pd.DataFrame:
        """A row for each subject of the sentence.

        matching, other : mean change of the pushed emotion's own word and of the other words [nats]
        contrast : how much more the own word rises under its own push than the other words do, and than it does under
            the other pushes; `_low` and `_high` by bootstrap over emotions, `_random` and `_shuffled` what 95 % of the
            nulls stay below
        wins : share of emotions whose word rises most of all words under their push, with the same
        """
        return pd.DataFrame({about: self._row(about) for about in self.changes}).T.rename_axis("about")

    def figure(self):
        """The matrices, and the contrasts beside their nulls."""
        return _figure(self)

    def verdict(self) -> str:
        """The result in words."""
        said = [f"{self.model}, pushed after block {self.layer} at {self.strength:g} on the reply's tokens."]
        for about, row in self.table().iterrows():
            n = len(self.changes[about])
            said.append(
                f"About {about}: the matching word changes by {row.matching:+.2f} nats, the others by "
                f"{row.other:+.2f}; contrast {row.contrast:+.2f} (95 % {row.contrast_low:+.2f} to "
                f"{row.contrast_high:+.2f}; 95 % of random directions below {row.contrast_random:+.2f}, of shuffled "
                f"names below {row.contrast_shuffled:+.2f}). The matching word rises most for {row.wins * n:.0f} of "
                f"{n} ({row.wins_shuffled * n:.0f} or fewer with 95 % of shuffled names)."
            )
        return " ".join(said)

    def claims(self) -> tuple[Claim, ...]:
        """The contrast about someone else and oneself, and how many words win about someone else."""
        table = self.table()
        shared = {"part": "function", "n": len(next(iter(self.changes.values()))), "of": "emotions"}
        papers = {
            "someone else": "matching about +2, others about -4.5 nats",
            "oneself": "matching strongly up, the others about unchanged",
        }
        nulls = {"null_name": "random directions outside the emotions, and shuffled names (the higher one)"}
        made = [
            Claim(
                f"Pushing an emotion makes its word likelier than the others, about {about}",
                statistic="own word against other words and other pushes (nats)",
                value=row.contrast, low=row.contrast_low, high=row.contrast_high,
                null=max(row.contrast_random, row.contrast_shuffled), paper=papers[about],
                source=SOURCES[about],
                **nulls, **shared,
            )
            for about, row in table.iterrows()
        ]  # fmt: skip
        row = table.loc["someone else"]
        made.append(
            Claim(
                "The pushed emotion's word is the one that rises most",
                statistic="share of emotions, about someone else", value=row.wins, low=row.wins_low,
                high=row.wins_high, chance=1 / shared["n"],
                null=max(row.wins_random, row.wins_shuffled), paper="near-diagonal; Qwen2.5-0.5B: 10 of 12 at 0.5",
                source=SOURCES["someone else"], **nulls, **shared,
            )
        )  # fmt: skip
        return tuple(made)

    def _row(self, about: str) -> dict[str, float]:
        rng = np.random.default_rng(self.seed)
        changes, random = self.changes[about].to_numpy(), self.random[about]
        n = len(changes)
        shuffled = np.array([rng.permutation(n) for _ in range(DRAWS)])
        taken = [random[rng.choice(len(random), n, replace=len(random) < n)] for _ in range(DRAWS)]
        inside = np.eye(n, dtype=bool)
        row = {"matching": changes[inside].mean(), "other": changes[~inside].mean()}
        for name, each in (("contrast", contrasts), ("wins", wins)):
            found = each(changes)
            drawn = found[rng.integers(n, size=(DRAWS, n))].mean(1)
            low, high = np.quantile(drawn, [0.025, 0.975])
            row |= {name: found.mean(), f"{name}_low": low, f"{name}_high": high}
            row[f"{name}_random"] = np.quantile([each(matrix).mean() for matrix in taken], 0.95)
            row[f"{name}_shuffled"] = np.quantile([each(changes[:, order]).mean() for order in shuffled], 0.95)
        return row


def contrasts(changes: np.ndarray) -> np.ndarray:
    """[emotion] of a square matrix: the diagonal, less the rest of its row and of its column, plus all other pairs.

    A push that raises all words, or a word that rises under all pushes, adds nothing.

    >>> contrasts(2 * np.eye(4) + np.array([[5], [0], [0], [0]])).tolist()
    [2.0, 2.0, 2.0, 2.0]
    """
    n, own = len(changes), np.diag(changes)
    pairs = changes - np.diag(own)
    row, column = pairs.sum(1), pairs.sum(0)
    rest = (pairs.sum() - row - column) / ((n - 1) * (n - 2))
    return own - (row + column) / (n - 1) + rest


def wins(changes: np.ndarray) -> np.ndarray:
    """[emotion] 1.0 where the diagonal is the highest of its row."""
    return (changes.argmax(1) == np.arange(len(changes))).astype(float)


def emotion_words(
    subject: Subject,
    vectors: EmotionVectors,
    emotions: Sequence[str] | None = None,
    *,
    strength: float = 0.5,
    layer: int | None = None,
    directions: int = 24,
    seed: int = 0,
) -> EmotionWords:
    """Push each emotion on the tokens of a reply that ends before a feeling's name, and read the names' chances.

    The push is on the reply's own tokens, as in the paper, at one layer (default the middle one), in units of the
    mean residual norm. A word is told by its first token.

    Raises EmolabError for vectors of another model, fewer than four emotions, or words that begin with one token.
    """
    vectors.check(subject)
    (layer,) = steered_layers(subject, vectors, layer)
    if emotions is None:
        usual = tuple(name for name in EMOTIONS if name in vectors.emotions)
        emotions = usual if len(usual) >= 4 else vectors.emotions[: len(EMOTIONS)]
    if len(set(emotions)) < 4:
        raise EmolabError(f"words are held against each other: give at least 4 different emotions, not {len(emotions)}")
    pushes = np.stack([direction(subject, vectors, {name: strength}, layer) for name in emotions])
    drawn = strength * random_directions(subject, vectors, layer, directions, "outside the emotions", seed)
    changes, random = {}, {}
    for about, prompts in PROMPTS.items():
        everything = np.concatenate([pushes, drawn])
        each = [_changes(subject, vectors, *prompt, everything, layer, emotions) for prompt in prompts]
        found = np.mean(each, axis=0)  # [push, word]
        changes[about] = pd.DataFrame(found[: len(pushes)], index=list(emotions), columns=list(emotions))
        random[about] = found[len(pushes) :]
    return EmotionWords(changes, random, strength, layer, subject.label, seed)


def _changes(
    subject: Subject,
    vectors: EmotionVectors,
    question: str,
    reply: str,
    pushes: np.ndarray,
    layer: int,
    emotions: Sequence[str],
) -> np.ndarray:
    """[push, word] change in log-probability of each word after the reply's beginning, pushed on its tokens."""
    asked = subject.ask(question)
    text = asked + reply
    words = first_tokens(subject, text, emotions)
    start = next(i for i, (_, end) in enumerate(subject.spans(text)) if end > len(asked))
    many = max(token_budget(subject) // len(subject.encode(text)), 1)  # copies in one batch, so that rows keep order
    rows = []
    for first in range(0, len(pushes), many):
        part = pushes[first : first + many]
        with steer(subject, vectors, part, layers=layer, positions=slice(start, None)):
            rows.append(next_token_logprobs(subject, [text] * len(part), words))
    return np.concatenate(rows) - next_token_logprobs(subject, [text], words)


def _figure(result: EmotionWords):
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(result.changes), figsize=(7.2 * len(result.changes), 6), layout="constrained")
    span = max(np.abs(frame.to_numpy()).max() for frame in result.changes.values())
    for axes, (about, frame) in zip(np.atleast_1d(panels), result.changes.items(), strict=True):
        image = axes.imshow(frame, cmap="RdBu_r", vmin=-span, vmax=span)
        row, n = result.table().loc[about], len(frame)
        axes.set_xticks(range(n), frame.columns, rotation=60, ha="right")
        axes.set_yticks(range(n), frame.index)
        for y, x in enumerate(frame.to_numpy().argmax(1)):
            axes.plot(x, y, "o", mfc="none", mec="black", ms=9)
        axes.set(xlabel="word", ylabel="pushed emotion")
        axes.set_title(
            f"About {about}: matching {row.matching:+.1f}, others {row.other:+.1f} nats\n"
            f"highest of its row (circle) is the matching word: {row.wins * n:.0f} of {n}"
        )
    figure.colorbar(image, ax=panels, shrink=0.7).set_label("change in log-probability of the word (nats)")
    figure.suptitle(f"{result.model}, pushed after block {result.layer} at {result.strength:g}")
    plt.close(figure)
    return figure
