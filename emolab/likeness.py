"""Does a direction lie where emotions lie? Shares, references, controls and identification in the vectors' own metric.

Everything is computed at the chosen layer from the story means that came with the vectors; no model runs. Lengths are
freed of noise: a mean of a few texts is longer than what the texts share, so squared lengths are taken as the average
product of two different texts, which is right on average whatever their number.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.linalg import solve_triangular

from emolab import data
from emolab.data import DATA
from emolab.directions import Labelled, fit, unit
from emolab.errors import EmolabError, unknown
from emolab.vectors import EmotionVectors

CENTRINGS = ("parts", "contrast", "genre")
SPAN = 0.6  # of the emotion vectors' variance lies in "where emotions lie", their main directions
FEWEST = 20  # emotions, for a reference that means something


@dataclass(frozen=True)
class Space:
    """The chosen layer in coordinates where the vectors' metric is the plain dot product.

    spread : [d_model, d_model] lower triangular, S = spread @ spread.T (the identity if plain vectors are in use)
    mean : [d_model] of the stories
    points : [emotion, d_model] the emotion vectors in these coordinates
    effects : [part, d_model] what the settings of the stories add to their mean
    genre : [axis, d_model] orthonormal, the span of the effects: how texts of one corpus differ besides in emotion
    """

    emotions: tuple[str, ...]
    spread: np.ndarray
    mean: np.ndarray
    points: np.ndarray
    parts: tuple[str, ...]
    effects: np.ndarray
    genre: np.ndarray

    def seen(self, means: np.ndarray) -> np.ndarray:
        """[text, d_model] means of texts, less the stories' mean, in these coordinates."""
        return solve_triangular(self.spread, (means - self.mean).T, lower=True).T

    def back(self, points: np.ndarray) -> np.ndarray:
        """Differences in these coordinates as differences of activations."""
        return points @ self.spread.T

    def probe(self, points: np.ndarray) -> np.ndarray:
        """[..., d_model] what to project activations on, of length 1 in the metric."""
        return solve_triangular(self.spread, unit(points).T, lower=True, trans="T").T

    def centred(self, means: np.ndarray, centring: str, parts=None, contrast: np.ndarray | None = None) -> np.ndarray:
        """[text, d_model] texts without what they have in common with texts of their kind; see `conceive.concept`."""
        found = self.seen(means)
        if centring == "parts":
            return found - self.effects[[self.parts.index(part) for part in parts]]
        if centring == "contrast":
            return found - self.seen(contrast).mean(0)
        return self.without_genre(found)

    def without_genre(self, points: np.ndarray) -> np.ndarray:
        return points - (points @ self.genre.T) @ self.genre

    def emotion_points(self, centring: str) -> np.ndarray:
        """[emotion, d_model] the emotions, treated as the texts are."""
        return self.without_genre(self.points) if centring == "genre" else self.points


def space(vectors: EmotionVectors) -> Space:
    """Raises EmolabError for vectors without evidence or of fewer than three emotions."""
    if vectors.evidence is None or len(vectors) < 3:
        raise EmolabError(
            "a concept is compared with emotions by the story means that the vectors were made from: use whole "
            "vectors of three emotions or more with their evidence (el.load_vectors, el.extract), not a selection"
        )
    train = vectors.evidence.train
    fitted = fit(train)
    spread = np.linalg.cholesky(fitted.metric) if vectors.metric == "probe" else np.eye(len(fitted.mean))
    points = solve_triangular(spread, vectors.vectors[:, vectors.row()].astype(float).T, lower=True).T
    parts = tuple(np.unique(train.parts).tolist())
    seen = solve_triangular(spread, (train.means - fitted.mean).T, lower=True).T  # [text, d_model]
    rows = {name: i for i, name in enumerate(vectors.emotions)}
    rest = seen - points[[rows[name] for name in train.emotions]]
    effects = np.stack([rest[train.parts == part].mean(0) for part in parts])
    _, size, axes = np.linalg.svd(effects - effects.mean(0), full_matrices=False)
    genre = axes[size > size[0] * 1e-6] if len(parts) > 1 else axes[:0]
    return Space(vectors.emotions, spread, fitted.mean, points, parts, effects, genre)


# --- lengths and shares ------------------------------------------------------------------------------------------


def common(texts: np.ndarray) -> float:
    """Squared length of what [text, d_model] texts share: the average product of two different ones.

    >>> common(np.array([[1.0, 1.0], [1.0, -1.0]]))
    0.0
    """
    n, total = len(texts), texts.sum(0)
    return float((total @ total - (texts * texts).sum()) / (n * (n - 1)))


def share(texts: np.ndarray, axes: np.ndarray) -> float:
    """How much of what texts share lies along orthonormal axes [axis, d_model]; NaN if they share nothing."""
    whole = common(texts)
    return common(texts @ axes.T) / whole if whole > 0 else float("nan")


def main_directions(points: np.ndarray, held: float = SPAN) -> np.ndarray:
    """[axis, d_model] orthonormal main directions of [emotion, d_model] that hold a share of their variance."""
    centred = points - points.mean(0)
    values, left = np.linalg.eigh(centred @ centred.T)  # by far fewer emotions than coordinates
    values, left = values[::-1], left[:, ::-1]
    k = int(np.searchsorted(np.cumsum(values) / values.sum(), held)) + 1
    return unit(left[:, :k].T @ centred)


def reference_shares(vectors: EmotionVectors, found: Space, centring: str) -> pd.Series:
    """[emotion] the share of each emotion in the span of all others, as if it were somebody's concept.

    With known parts these are the stories that the vectors are made of; else, if there are any, held-out stories,
    those by other authors first: they differ in genre and authors as a user's texts do.
    """
    points = found.emotion_points(centring)
    shares = {}
    for row, name, texts in _as_concepts(vectors, found, centring):
        shares[name] = share(texts, main_directions(np.delete(points, row, 0)))
    return pd.Series(shares, name="share").rename_axis("emotion")


def _as_concepts(vectors: EmotionVectors, found: Space, centring: str) -> Iterator[tuple[int, str, np.ndarray]]:
    """(row, emotion, [text, d_model]) for each emotion with enough stories."""
    evidence = vectors.evidence
    held_out = [s for s in (evidence.test, evidence.choose) if s is not None and len(np.unique(s.emotions)) >= FEWEST]
    if centring == "parts" or not held_out:
        centring, stories = "parts" if centring == "contrast" else centring, evidence.train
    else:
        stories = held_out[0]
    texts = found.centred(stories.means, centring, stories.parts, stories.means)
    for row, name in enumerate(vectors.emotions):
        own = texts[stories.emotions == name]
        if len(own) > 1:
            yield row, name, own


def control_shares(vectors: EmotionVectors, found: Space) -> pd.Series:
    """The share of what is no emotion: settings of stories over all emotions, and kinds of neutral text.

    Kinds are known only where the neutral baseline is emolab's own.
    """
    axes, evidence, shares = main_directions(found.points), vectors.evidence, {}
    for stories in (evidence.train, evidence.choose):
        texts = None if stories is None else found.seen(stories.means - stories.means.mean(0) + found.mean)
        for part in () if texts is None else np.unique(stories.parts):
            if 1 < (stories.parts == part).sum() < len(texts):
                shares[f"setting {part}"] = share(texts[stories.parts == part], axes)
    kinds = [row["kind"] for _, row in data._rows(DATA / "neutral.jsonl")]
    each, left = divmod(len(evidence.neutral), len(kinds))
    if not left and vectors.info.get("n_neutral") == len(kinds):
        texts = evidence.neutral.reshape(len(kinds), each, -1).mean(1)
        texts = found.seen(texts - texts.mean(0) + found.mean)
        for kind in sorted(set(kinds)):
            shares[kind] = share(texts[np.array(kinds) == kind], axes)
    return pd.Series(shares, name="share", dtype=float).rename_axis("control")


# --- identification ----------------------------------------------------------------------------------------------


def own_ranks(texts: np.ndarray, points: np.ndarray) -> np.ndarray:
    """[text] rank of the direction of the other texts among all emotions when each text is scored; 1 is best."""
    others = unit((texts.sum(0) - texts) / (len(texts) - 1))  # [text, d_model], each without the text itself
    own = (others * texts).sum(1)
    return 1 + (texts @ unit(points).T >= own[:, None]).sum(1)


def random_sets(
    vectors: EmotionVectors, found: Space, size: int, parts, centring: str, draws: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """[text, d_model] sets of as many stories, each of another emotion where there are enough, of the same parts."""
    train = vectors.evidence.train
    how = "genre" if centring == "genre" else "parts"
    texts = found.centred(train.means, how, train.parts)
    rows = {(e, p): i for i, (e, p) in enumerate(zip(train.emotions, train.parts, strict=True))}
    for _ in range(draws):
        names = rng.choice(found.emotions, size, replace=size > len(found.emotions))
        settings = parts if how == "parts" and parts is not None else rng.choice(found.parts, size)
        cells = [rows.get((name, part)) for name, part in zip(names, settings, strict=True)]
        yield texts[[rng.integers(len(texts)) if cell is None else cell for cell in cells]]


def false_alarms(stories: Labelled, found: Space, direction: np.ndarray) -> pd.Series:
    """[emotion] share of its stories that score higher on a concept than on any emotion, centred on their mean."""
    texts = found.seen(stories.means - stories.means.mean(0) + found.mean)
    alarm = (texts @ unit(direction)) > (texts @ unit(found.points).T).max(1)
    return pd.Series(alarm * 1.0).groupby(stories.emotions).mean().rename("false alarms")


# --- validation --------------------------------------------------------------------------------------------------


def validation(vectors: EmotionVectors, texts: str = "test", centring: str = "genre") -> pd.DataFrame:
    """Each emotion as somebody's concept: does its direction come out beside the emotion's own vector?

    texts : 'test' or 'choose', held-out stories in another genre and (test) by other authors, whose setting is not
        used; 'train', six of the settings against vectors from the others.
    centring : for held-out stories 'genre' (nothing known about the texts) or 'contrast' (against all of that genre)

    Columns: `cosine` with the emotion's own vector, its `rank` among all emotions, `nearest`. Raises EmolabError for
    other texts, or if the vectors have none.
    """
    if texts not in ("test", "choose", "train"):
        raise unknown("set of texts", texts, ["test", "choose", "train"])
    found, stories = space(vectors), getattr(vectors.evidence, texts)
    if stories is None or (texts == "train" and len(found.parts) < 2):
        raise EmolabError(f"these vectors have no {texts!r} texts to be tried on: use others, or whole shipped vectors")
    points = found.emotion_points(centring if texts != "train" else "parts")
    if texts == "train":
        centring = "parts"
        first = np.isin(stories.parts, found.parts[::2])
        rest = found.centred(stories.means, "parts", stories.parts)
        points = np.stack([rest[~first & (stories.emotions == name)].mean(0) for name in found.emotions])
        stories = stories[first]
    seen = found.centred(stories.means, centring, stories.parts, stories.means)
    rows = {}
    for name in np.unique(stories.emotions):
        cosines = unit(points) @ unit(seen[stories.emotions == name].mean(0))
        own = cosines[found.emotions.index(name)]
        nearest = found.emotions[int(cosines.argmax())]
        rows[str(name)] = {"cosine": own, "rank": int((cosines >= own).sum()), "nearest": nearest}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("emotion")
