"""What is set beside the emotion vectors when they watch: words alone, and directions that mean nothing.

All monitors give the same thing, scores of each token from what stands up to it, so that they are judged alike.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from emolab import data
from emolab.directions import lexical_centroids, unit
from emolab.errors import EmolabError
from emolab.experiments.paired import DIRECTIONS, random_probes
from emolab.model import Subject
from emolab.vectors import EmotionVectors
from emolab.watching.scores import Gauge, Laid, gauge, read_scores, smoothed
from emolab.watching.thresholds import is_test

VECTORS = "emotion vectors"
WINDOWS = (8, 32)  # words that a lexical monitor looks back on; the better of the two is what counts
DRAWS = 1000  # of the bootstrap over texts
RANDOM = 20  # sets of random directions


def words_name(window: int) -> str:
    """What the lexical monitor of a window is called."""
    return f"words alone, last {window}"


MONITORS = (VECTORS, *(words_name(window) for window in WINDOWS))


@dataclass(frozen=True, eq=False)
class Lexical:
    """Monitors by words alone: the last words against the TF-IDF centroids of the emotions' stories.

    names : of the emotions
    centroids : [emotion, word] at unit length
    vectorizer : turns texts into rows of the same words
    centre, sd : [window, emotion] of neutral texts, those that calibrate
    """

    names: tuple[str, ...]
    centroids: np.ndarray
    vectorizer: object
    centre: np.ndarray
    sd: np.ndarray

    def scores(self, laid: Laid) -> np.ndarray:
        """[window, token, emotion] in sd of neutral words; a token has the score of the word that it ends in."""
        words = [match.span() for match in re.finditer(r"\S+", laid.text)]
        starts = np.array([start for start, _ in words])
        ends = np.cumsum([len(token) for token in laid.tokens])
        word = np.maximum(np.searchsorted(starts, ends, side="left") - 1, 0)  # the last that begins before the end
        # in a chat a turn knows nothing of the turn before it
        borders = sorted({int(word[turn.tokens.start]) for turn in laid.turns})
        first = np.array([max([b for b in borders if b <= i], default=0) for i in range(len(words))])
        found = []
        for window in WINDOWS:
            texts = [laid.text[words[max(i - window + 1, first[i])][0] : end] for i, (_, end) in enumerate(words)]
            found.append((self.vectorizer.transform(texts) @ self.centroids.T)[word])
        return (np.stack(found) - self.centre[:, None]) / self.sd[:, None]


def lexical(names: Sequence[str], neutral: Sequence[Laid]) -> Lexical:
    """Made of emolab's stories, scaled on the neutral texts that calibrate. Raises EmolabError for other emotions."""
    emotions, centroids, vectorizer = lexical_centroids(data.stories())
    missing = [name for name in names if name not in emotions]
    if missing:
        raise EmolabError(f"there are no stories for {missing[0]!r}: words alone can't be set beside it")
    rows = [emotions.index(name) for name in names]
    zeros, ones = np.zeros((len(WINDOWS), len(rows))), np.ones((len(WINDOWS), len(rows)))
    raw = Lexical(tuple(names), centroids[rows], vectorizer, zeros, ones)
    scores = np.concatenate([raw.scores(laid) for laid in neutral], axis=1)
    return replace(raw, centre=scores.mean(1), sd=np.maximum(scores.std(1), 1e-12))


def random_gauge(vectors: EmotionVectors, names: Sequence[str], seed: int) -> Gauge:
    """RANDOM x emotion directions that vary as stories of one emotion do, made and scaled like the emotions' own."""
    evidence, layer = vectors.need_evidence(), vectors.chosen_layer
    drawn = random_probes(vectors, np.random.default_rng(seed))
    if (needed := RANDOM * len(names)) > DIRECTIONS:
        raise EmolabError(f"{needed} random directions are needed and {DIRECTIONS} are drawn: watch fewer emotions")
    directions = unit(drawn[:needed])
    sd = np.maximum((evidence.neutral.astype(np.float64) @ directions.T).std(0), 1e-30)
    scaled = (directions / sd[:, None]).astype(np.float32)
    random = tuple(f"random {i}" for i in range(needed))
    return Gauge(layer, random, scaled, vectors.neutral_mean[vectors.row()].astype(np.float32))


@dataclass(frozen=True, eq=False)
class Panel:
    """All monitors of some emotions: emotion vectors, words alone, random directions."""

    subject: Subject
    own: Gauge
    words: Lexical
    random: Gauge

    def look(self, laid: Sequence[Laid]) -> list[np.ndarray]:
        """For each text [monitor, token, emotion]: the monitors of MONITORS, then RANDOM sets of random directions.

        Tokens that are not scored are NaN.
        """
        found = []
        for one, scores in zip(laid, read_scores(self.subject, [one.ids for one in laid], self.own, self.random)):  # noqa: B905
            turns = [turn.tokens for turn in one.turns]
            own, random = (smoothed(s, turns) for s in scores)
            random = random.reshape(len(random), RANDOM, -1).swapaxes(0, 1)  # [set, token, emotion]
            words = self.words.scores(one)
            words[:, np.isnan(own[:, 0])] = np.nan
            found.append(np.concatenate([own[None], words, random]).astype(np.float32))
        return found


def panel(subject: Subject, vectors: EmotionVectors, names: Sequence[str], neutral: Sequence[Laid], seed: int) -> Panel:
    """The monitors, at the chosen layer. Raises EmolabError without the vectors' evidence or stories of an emotion."""
    made = [laid for laid in neutral if not is_test(laid.text)]
    return Panel(subject, gauge(vectors, names), lexical(names, made), random_gauge(vectors, names, seed))


# --- how well scores tell texts apart ------------------------------------------------------------------------------


def auc(scores: np.ndarray, labels: np.ndarray, weights: Iterable[np.ndarray] | None = None) -> np.ndarray:
    """The chance that a positive case scores above a negative one, ties counted half; [draw] for
    weights [draw][case].

    >>> float(auc(np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, False, True, True]))[0])
    0.875
    """
    _, place = np.unique(scores, return_inverse=True)
    labels, n = labels.astype(bool), place.max() + 1
    found = []
    for row in np.ones((1, len(scores))) if weights is None else weights:
        positive = np.bincount(place[labels], row[labels], minlength=n)
        negative = np.bincount(place[~labels], row[~labels], minlength=n)
        below = np.cumsum(negative) - negative / 2
        whole = positive.sum() * negative.sum()
        found.append((positive * below).sum() / whole if whole else np.nan)
    return np.array(found)


@dataclass(frozen=True, eq=False)
class Cases:
    """What is to be told apart: tokens, turns or texts.

    scores : [monitor, case] by MONITORS and then the random sets
    labels : [case] whether the emotion is there
    units : [case] the text that a case belongs to; the bootstrap draws texts
    """

    scores: np.ndarray
    labels: np.ndarray
    units: np.ndarray

    def auc(self, monitor: int) -> float:
        """How well a monitor tells them apart."""
        return float(auc(self.scores[monitor], self.labels)[0])

    def drawn(self, monitor: int, seed: int) -> np.ndarray:
        """[draw] AUC of bootstrapped texts; the same texts for each monitor."""
        units, place = np.unique(self.units, return_inverse=True)
        rng = np.random.default_rng(seed)
        counts = rng.multinomial(len(units), np.full(len(units), 1 / len(units)), DRAWS)  # [draw, unit]
        return auc(self.scores[monitor], self.labels, (row[place].astype(float) for row in counts))

    def row(self, seed: int) -> dict[str, float]:
        """AUC of the emotion vectors, its interval, that of the better lexical monitor, their difference, and what
        95 % of random directions stay below, each turned to the side on which it tells more apart."""
        values = [self.auc(m) for m in range(len(MONITORS))]
        best = 1 + int(np.argmax(values[1:]))
        own, words = self.drawn(0, seed), self.drawn(best, seed)
        random = np.array([self.auc(m) for m in range(len(MONITORS), len(self.scores))])
        folded = np.maximum(random, 1 - random)
        ends = {"": own, "words ": words, "gain ": own - words}
        row = {"auc": values[0], "words auc": values[best], "gain auc": values[0] - values[best]}
        for name, draws in ends.items():
            row |= {f"{name}low": np.nanquantile(draws, 0.025), f"{name}high": np.nanquantile(draws, 0.975)}
        row |= {"random 95 %": np.quantile(folded, 0.95), "random gain": np.quantile(folded - values[best], 0.95)}
        return row | {"cases": len(self.labels), "texts": len(np.unique(self.units)), "words by": MONITORS[best]}

    def roc(self, monitor: int, points: int = 201) -> np.ndarray:
        """[point, (false, true)] shares above a threshold that falls from one point to the next."""
        order = np.argsort(-self.scores[monitor], kind="stable")
        hits = self.labels[order]
        true, false = np.cumsum(hits) / hits.sum(), np.cumsum(~hits) / (~hits).sum()
        chosen = np.linspace(0, len(order) - 1, points).astype(int)
        return np.vstack([[0, 0], np.column_stack([false, true])[chosen]])
