"""From means of stories to directions, and how well directions identify stories. Arrays in, arrays out.

*Vector*: what an emotion adds to the mean story, settings taken out (paper section 1.2). Steer with it, draw it.
*Probe*: the vector in the metric of the within-emotion covariance, as in linear discriminant analysis. Read
with it: raw projections are ruled by the few coordinates that carry most of a model's variance.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.linalg import cho_factor, cho_solve
from sklearn.feature_extraction.text import TfidfVectorizer

from emolab.data import Story, chunks

SHRINKAGE = 0.3
METRICS = ("vector", "probe")


@dataclass(frozen=True)
class Labelled:
    """Mean activations of stories at one layer, with their labels.

    means : [text, d_model]
    emotions, parts : [text] of str
    """

    means: np.ndarray
    emotions: np.ndarray
    parts: np.ndarray

    def __len__(self) -> int:
        return len(self.means)

    def __getitem__(self, chosen: np.ndarray) -> "Labelled":
        return Labelled(self.means[chosen], self.emotions[chosen], self.parts[chosen])


@dataclass(frozen=True)
class Fit:
    """The additive model mean + part + emotion of a set of stories at one layer.

    emotions : sorted names
    vectors : [emotion, d_model], zero on average over emotions
    mean : [d_model], mean over emotions
    metric : [d_model, d_model] shrunk covariance of the stories within emotions, S
    """

    emotions: tuple[str, ...]
    vectors: np.ndarray
    mean: np.ndarray
    metric: np.ndarray

    def probes(self) -> np.ndarray:
        """[emotion, d_model]: inv(S) v, scaled to unit length in the metric S."""
        return probes_of(self.vectors, self.metric)

    def directions(self, metric: str) -> np.ndarray:
        """[emotion, d_model]: unit vectors for 'vector', probes for 'probe'."""
        return unit(self.vectors) if metric == "vector" else self.probes()


def fit(stories: Labelled, weights: np.ndarray | None = None) -> Fit:
    """Emotion vectors with what the settings (parts) share taken out, by least squares.

    With every emotion in every part this is the emotion mean minus the mean over emotions. `weights` [text]
    counts stories unequally (token-weighted pooling).
    """
    names, emotion = np.unique(stories.emotions, return_inverse=True)
    parts, part = np.unique(stories.parts, return_inverse=True)
    weights = np.ones(len(stories)) if weights is None else weights
    means = stories.means.astype(np.float64)
    weighted = means * weights[:, None]  # [text, d_model]
    cells = np.zeros((len(names), len(parts)))
    np.add.at(cells, (emotion, part), weights)
    sums = np.zeros((len(names) + len(parts), means.shape[1]))
    np.add.at(sums, emotion, weighted)
    np.add.at(sums, len(names) + part, weighted)
    return fit_sums(names, cells, sums, means.T @ weighted, len(stories))


def fit_sums(names: Sequence[str], cells: np.ndarray, sums: np.ndarray, squares: np.ndarray, n: int) -> Fit:
    """The same from sums over n stories, all that the fit needs.

    cells : [emotion, part] sum of the stories' weights
    sums : [emotion + part, d_model] weighted sum of the means of each emotion's stories, then of each part's
    squares : [d_model, d_model] weighted sum of the outer products of the means
    """
    of_emotion, of_part = (np.diag(cells.sum(axis)) for axis in (1, 0))
    effects = np.linalg.pinv(np.block([[of_emotion, cells], [cells.T, of_part]]), hermitian=True) @ sums
    vectors, settings = effects[: len(names)], effects[len(names) :]  # [emotion, d_model], [part, d_model]
    centre = vectors.mean(0)
    spare = n - sum(cells.shape) + 1  # with a story for each emotion nothing is left but rounding errors
    residual = squares - effects.T @ sums if spare > 0 else np.zeros_like(squares)  # nothing along what is fitted
    freedom = max(spare, 1) * cells.sum() / n
    return Fit(
        tuple(map(str, names)),
        vectors - centre,
        settings.mean(0) + centre,
        shrink((residual + residual.T) / (2 * freedom)),
    )


def shrink(covariance: np.ndarray) -> np.ndarray:
    """(1 - a) C + a diag(C) with a = 0.3, which can be inverted whatever the number of stories.

    The target is the diagonal, not a multiple of the identity: then a coordinate that carries most of the variance
    can't set the scale for all others, and the probes are the same however each coordinate is scaled.
    """
    variance = np.diag(covariance)
    variance = np.maximum(variance, variance.mean() * 1e-9 or 1.0)
    return (1 - SHRINKAGE) * covariance + np.diag(variance - (1 - SHRINKAGE) * np.diag(covariance))


def probes_of(vectors: np.ndarray, metric: np.ndarray) -> np.ndarray:
    """[..., d_model] vectors -> inv(S) v / sqrt(v inv(S) v)."""
    raised = cho_solve(cho_factor(metric), vectors.T).T
    length = np.sqrt(np.einsum("ed,ed->e", vectors, raised))
    return raised / np.maximum(length, 1e-30)[:, None]


def unit(vectors: np.ndarray) -> np.ndarray:
    """Each row at length 1 (zero rows stay zero)."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-30)


# --- identification ----------------------------------------------------------------------------------------------


def ranks(scores: np.ndarray, emotions: Sequence[str], truth: np.ndarray) -> np.ndarray:
    """[text] the rank of the true emotion among all in scores [text, emotion]; 1 is best, ties count against."""
    column = {emotion: i for i, emotion in enumerate(emotions)}
    own = scores[np.arange(len(truth)), [column[emotion] for emotion in truth]]
    return (scores >= own[:, None]).sum(1)


def identify(
    directions: np.ndarray, emotions: Sequence[str], texts: Labelled, centre: np.ndarray | None = None
) -> np.ndarray:
    """[text] rank of each text's emotion when texts are scored by projection on directions [emotion, d_model].

    The texts are centred first, by default on their own mean: it says what genre they are, not which emotion.
    """
    centre = texts.means.mean(0) if centre is None else centre
    return ranks((texts.means - centre) @ directions.T, emotions, texts.emotions)


def summary(rank: np.ndarray) -> dict[str, float]:
    """Share of texts with the true emotion first and among the first five, and the median rank."""
    return {
        "top1": float((rank == 1).mean()),
        "top5": float((rank <= 5).mean()),
        "median_rank": float(np.median(rank)),
    }


def lexical_ranks(train: Iterable[Story], texts: Sequence[Story], genre: Sequence[Story] | None = None) -> np.ndarray:
    """The same ranks from words alone: the nearest TF-IDF centroid of each emotion's training stories.

    Texts are centred on the mean of `genre` (default: of themselves), as activations are in `identify`; without
    that the baseline would be weaker than it need be. Goes through `train` three times.
    """
    emotions, centroids, vectorizer = lexical_centroids(train)
    seen, of_genre = (
        vectorizer.transform([story.text for story in stories]) @ centroids.T for stories in (texts, genre or texts)
    )
    return ranks(seen - of_genre.mean(0), emotions, np.array([story.emotion for story in texts]))


def lexical_centroids(train: Iterable[Story]) -> tuple[list[str], np.ndarray, TfidfVectorizer]:
    """Names, [emotion, word] mean TF-IDF of each emotion's stories less the mean over emotions, at unit length, and
    what turns texts into rows of the same words."""
    vectorizer = TfidfVectorizer(sublinear_tf=True).fit(story.text for story in train)
    counts = Counter(story.emotion for story in train)
    emotions = sorted(counts)
    centroids = np.zeros((len(emotions), len(vectorizer.vocabulary_)))  # large: all that follows is done in place
    for chunk in chunks(train, 1024):
        rows = vectorizer.transform([story.text for story in chunk])  # [text, word]
        labels = np.array([story.emotion for story in chunk])
        for emotion in np.unique(labels).tolist():
            centroids[emotions.index(emotion)] += np.asarray(rows[labels == emotion].sum(0))[0]
    centroids /= np.array([[counts[emotion]] for emotion in emotions])
    centroids -= centroids.mean(0)
    centroids /= np.maximum(np.sqrt(np.einsum("ew,ew->e", centroids, centroids)), 1e-30)[:, None]
    return emotions, centroids, vectorizer


def left_out_ranks(stories: Labelled, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Ranks of the stories of each part, by metric, with directions from the other parts; empty for one part."""
    found: dict[str, list[np.ndarray]] = {metric: [] for metric in METRICS}
    parts = np.unique(stories.parts)
    for part in parts if len(parts) > 1 else ():
        rest = stories.parts != part
        fitted = fit(stories[rest], None if weights is None else weights[rest])
        left_out = stories[~rest & np.isin(stories.emotions, fitted.emotions)]
        for metric in METRICS:
            found[metric].append(identify(fitted.directions(metric), fitted.emotions, left_out))
    return {metric: np.concatenate([[], *rank]) for metric, rank in found.items()}


# --- the layer rule ----------------------------------------------------------------------------------------------


def choose(profile: pd.DataFrame) -> tuple[int, str]:
    """The layer and the metric that identify held-out stories best.

    `profile` has a row a layer and a column for each metric with the share identified (top-1). Each value is
    averaged with its neighbours' first, so that one lucky layer does not win.
    """
    smooth = profile[list(METRICS)].rolling(3, center=True, min_periods=1).mean()
    metric = str(smooth.max().idxmax())
    return int(smooth[metric].idxmax()), metric
