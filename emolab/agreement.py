"""Do two models agree on how emotions lie to each other? `compare()` sets two vector files side by side.

Only similarities within each model are compared, so the models may differ in width, depth and maker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.linalg import orthogonal_procrustes
from scipy.stats import rankdata

from emolab import data
from emolab.data import Story
from emolab.directions import Fit, fit, lexical_centroids, unit
from emolab.errors import EmolabError
from emolab.geometry import principal_components, umap_points
from emolab.vectors import EmotionVectors

FEWEST = 10  # emotions in common
PERMUTATIONS = 1000
DRAWS = 1000  # of the bootstrap over emotions
SPLITS = 5  # of the settings into halves
AXES = 10  # principal components that are aligned for the map

SAME, OTHER, BEYOND, WORDS = "the same texts", "other texts", "other texts, beyond the words", "words alone"


@dataclass(frozen=True)
class Agreement:
    """What two models agree on.

    models : their names
    rows : [texts] Spearman correlation of the two similarity matrices over pairs of emotions: rho, low, high (95 %,
        bootstrap over emotions) and null (what 95 % of permutations of the emotions stay below)
    by_emotion : [emotion] Spearman correlation of its similarities to all others, least first
    layers : [layer of the first, layer of the second] rho on the same texts
    places : [emotion] x, y of the first model and x2, y2 of the second in one map, after rotation
    chosen : the layers that are compared in `rows`
    """

    models: tuple[str, str]
    rows: pd.DataFrame
    by_emotion: pd.Series
    layers: pd.DataFrame
    places: pd.DataFrame
    chosen: tuple[int, int]

    def table(self) -> pd.DataFrame:
        """The correlations with intervals and nulls."""
        return self.rows

    def figure(self):
        """Both models in one map, each emotion joined to itself."""
        from emolab.plots import agreement_map

        return agreement_map(self)

    def heatmap(self):
        """Agreement by layer."""
        from emolab.plots import agreement_heatmap

        return agreement_heatmap(self)

    def verdict(self) -> str:
        """What they agree on, in words."""
        same = self.rows.loc[SAME]
        said = (
            f"{self.models[0]} (layer {self.chosen[0]}) and {self.models[1]} (layer {self.chosen[1]}) order the pairs "
            f"of {len(self.by_emotion)} emotions alike with rho = {same.rho:.2f} (95 % {same.low:.2f} to "
            f"{same.high:.2f}; chance up to {same.null:.2f}) on the same texts"
        )
        for name, how in ((OTHER, "where each reads other texts"), (BEYOND, "and there beyond what words share")):
            if name in self.rows.index:
                row = self.rows.loc[name]
                said += f", {row.rho:.2f} ({row.low:.2f} to {row.high:.2f}; chance {row.null:.2f}) {how}"
        least = ", ".join(self.by_emotion.index[:5])
        return f"{said}. They agree least on {least}."


def compare(
    first: EmotionVectors, second: EmotionVectors, stories: Sequence[Story] | None = None, seed: int = 0
) -> Agreement:
    """What two models agree on, over the emotions that both vector files hold.

    Each is read at its chosen layer and in its metric. Where both come with evidence from the same settings, vectors
    are also made anew from halves of the settings, so that no text is read by both; where `stories`, the texts that
    both were made from (by default emolab's own, if they were), are there, similarities in words are partialled out.
    Raises EmolabError for fewer than 10 emotions in common.
    """
    shared = [emotion for emotion in first.emotions if emotion in second.emotions]
    if len(shared) < FEWEST:
        raise EmolabError(
            f"these vectors have {len(shared)} emotions in common and a comparison needs {FEWEST}: extract both from "
            "stories of the same emotions"
        )
    sides, rng = (first[shared], second[shared]), np.random.default_rng(seed)
    matrices = [side.cosines().to_numpy() for side in sides]
    rows = {SAME: _measured(*matrices, (), rng)}
    rows |= _on_other_texts((first, second), shared, _texts((first, second), stories), rng)
    return Agreement(
        models=tuple(side.info.get("model", "?") for side in sides),
        rows=pd.DataFrame.from_dict(rows, orient="index", columns=["rho", "low", "high", "null"]),
        by_emotion=_by_emotion(*matrices, shared),
        layers=_by_layer(*sides),
        places=_places(*sides, seed),
        chosen=(first.chosen_layer, second.chosen_layer),
    )


def _texts(sides: Sequence[EmotionVectors], stories: Sequence[Story] | None) -> Sequence[Story] | None:
    if stories is None and len({str(side.info.get("corpus")) for side in sides}) == 1:
        stories = data.stories()
        return stories if sides[0].info.get("corpus") == data.corpus_hash(stories) else None
    return stories


def _on_other_texts(sides, shared: list[str], stories: Sequence[Story] | None, rng) -> dict[str, tuple]:
    """Agreement where each side reads one half of the settings, averaged over splits and sides."""
    if any(side.evidence is None for side in sides):
        return {}
    parts = sorted(set(sides[0].evidence.train.parts) & set(sides[1].evidence.train.parts))
    if len(parts) < 4:
        return {}
    read, words = ([], []), ([], [])
    for _ in range(SPLITS):
        half = set(rng.permutation(parts)[: len(parts) // 2])
        for halves in ((half, set(parts) - half), (set(parts) - half, half)):
            for side, matrix, chosen in zip(sides, read, halves, strict=True):
                matrix.append(_similarity_of_parts(side, chosen, shared))
            for matrix, chosen in zip(words, halves, strict=True) if stories else ():
                matrix.append(_similarity_in_words(stories, chosen, shared))
    if not stories:
        return {OTHER: _measured(*map(np.stack, read), (), rng)}
    read, words = (tuple(map(np.stack, both)) for both in (read, words))  # each [split, emotion, emotion]
    return {
        OTHER: _measured(*read, (), rng),
        BEYOND: _measured(*read, words, rng),
        WORDS: _measured(*words, (), rng),
    }


def _similarity_of_parts(side: EmotionVectors, parts: set[str], shared: list[str]) -> np.ndarray:
    train = side.evidence.train
    found = fit(train[np.isin(train.parts, sorted(parts))])
    return _cosines(found, side.metric)[np.ix_(*[[found.emotions.index(name) for name in shared]] * 2)]


def _cosines(found: Fit, metric: str) -> np.ndarray:
    """[emotion, emotion]; for probes in the metric of the within-emotion covariance."""
    if metric == "vector":
        return unit(found.vectors) @ unit(found.vectors).T
    products = found.probes() @ found.vectors.T  # p_i . v_j = cos_ij |v_j|, and |v_j| = p_j . v_j
    return products / np.diag(products)


def _similarity_in_words(stories: Sequence[Story], parts: set[str], shared: list[str]) -> np.ndarray:
    names, centroids = lexical_centroids([story for story in stories if story.part in parts])[:2]
    rows = centroids[[names.index(name) for name in shared]]
    return rows @ rows.T


def _measured(a: np.ndarray, b: np.ndarray, given: Sequence[np.ndarray], rng) -> tuple[float, float, float, float]:
    """rho, low, high, null of similarity matrices [emotion, emotion] or [split, emotion, emotion], averaged over
    splits, with the matrices `given` partialled out."""
    a, b, *given = (np.atleast_3d(m.T).T for m in (a, b, *given))
    n = a.shape[-1]

    def rho(chosen: np.ndarray, permuted: np.ndarray) -> float:
        """Over pairs of chosen emotions, the second model's being those of `permuted`."""
        i, j = np.triu_indices(n, 1)
        i, j = (x[chosen[i] != chosen[j]] for x in (i, j))  # an emotion drawn twice is no pair
        picked = [m[:, chosen[i], chosen[j]] for m in (a, *given)] + [b[:, permuted[i], permuted[j]]]
        return float(np.mean([_partial(left, right, rest) for left, *rest, right in zip(*picked, strict=True)]))

    all_of_them = np.arange(n)
    drawn = [rho(d, d) for d in (rng.integers(n, size=n) for _ in range(DRAWS // len(a)))]
    null = [rho(all_of_them, rng.permutation(n)) for _ in range(PERMUTATIONS // len(a))]
    return rho(all_of_them, all_of_them), *np.quantile(drawn, [0.025, 0.975]), np.quantile(null, 0.95)


def _partial(left: np.ndarray, right: np.ndarray, rest: Sequence[np.ndarray]) -> float:
    """Spearman correlation over pairs, after a regression of the ranks on those of the rest."""
    left, right, *rest = (rankdata(x) for x in (left, right, *rest))
    design = np.column_stack([np.ones_like(left), *rest])
    left, right = (x - design @ np.linalg.lstsq(design, x, rcond=None)[0] for x in (left, right))
    return float(left @ right / max(np.linalg.norm(left) * np.linalg.norm(right), 1e-30))


def _by_emotion(a: np.ndarray, b: np.ndarray, shared: list[str]) -> pd.Series:
    others = ~np.eye(len(a), dtype=bool)
    found = [_partial(a[i, others[i]], b[i, others[i]], ()) for i in range(len(a))]
    return pd.Series(found, index=shared, name="rho").sort_values()


def _by_layer(first: EmotionVectors, second: EmotionVectors) -> pd.DataFrame:
    pairs = np.triu_indices(len(first), 1)

    def ranked(side: EmotionVectors) -> np.ndarray:
        ranks = np.stack([rankdata(side.cosines(layer).to_numpy()[pairs]) for layer in side.layers])
        return unit(ranks - ranks.mean(1, keepdims=True))  # [layer, pair]

    index, columns = (pd.Index(side.layers, name=side.info.get("model", "?")) for side in (first, second))
    return pd.DataFrame(ranked(first) @ ranked(second).T, index=index, columns=columns)


def _places(first: EmotionVectors, second: EmotionVectors, seed: int) -> pd.DataFrame:
    """Both in one UMAP, after the second's main axes have been turned onto the first's."""
    points = [principal_components(unit(side.coordinates()), AXES)[0].to_numpy() for side in (first, second)]
    width = min(side.shape[1] for side in points)
    points = [side[:, :width] / np.linalg.norm(side[:, :width]) for side in points]
    turn, _ = orthogonal_procrustes(points[1], points[0])
    placed = umap_points(np.concatenate([points[0], points[1] @ turn]), seed)[0].reshape(2, len(first), 2)
    return pd.DataFrame(np.hstack(placed), index=first.emotions, columns=["x", "y", "x2", "y2"])
