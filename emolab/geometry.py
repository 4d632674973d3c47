"""The shape of emotion space: map, principal components, clusters, order, layers, and human ratings.

All of it at one layer and in one metric, by default those that the vectors are read with. Human ratings judge
the geometry and are never used to make it.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform
from scipy.stats import spearmanr
from sklearn.cluster import KMeans
from sklearn.linear_model import RidgeCV
from sklearn.metrics import silhouette_score
from sklearn.model_selection import KFold

from emolab import data
from emolab.claims import Claim
from emolab.directions import unit
from emolab.errors import EmolabError
from emolab.vectors import EmotionVectors

DIMENSIONS = ("pleasure", "arousal", "dominance")
ALPHAS = np.logspace(-3, 3, 13)
FOLDS = 9
REPEATS = 10
PERMUTATIONS = 200


@dataclass(frozen=True)
class Geometry:
    """The shape of a set of emotion vectors at one layer.

    points : [emotion] x, y (UMAP), cluster (k-means on the first ten components), and pleasure, arousal, dominance as
        predicted from human ratings (for rated words by models that never saw their rating; NaN if too few are rated)
    components : [emotion, PC1..] coordinates on the principal components
    variance : [PC1..] share of variance
    cosines : [emotion, emotion]
    order : emotions in hierarchical order, neighbours alike
    silhouette : of the clusters, in cosine distance on the same ten components, -1..1
    norms : [dimension] correlations with human ratings, see `norm_table`; empty if too few words are rated
    parameters : how the map and the clusters were made
    """

    points: pd.DataFrame
    components: pd.DataFrame
    variance: pd.Series
    cosines: pd.DataFrame
    order: list[str]
    silhouette: float
    norms: pd.DataFrame
    parameters: dict
    layer: int
    metric: str
    model: str

    def figure(self):
        """The UMAP map as a matplotlib figure."""
        from emolab.plots import emotion_map

        return emotion_map(self)

    def interactive(self):
        """The UMAP map as a page in which emotions can be searched and clicked."""
        from emolab.interactive import interactive_map

        return interactive_map(self)

    def table(self) -> pd.DataFrame:
        """Correlations with human ratings."""
        return self.norms

    def verdict(self) -> str:
        """What the geometry shows, in words."""
        if self.norms.empty:
            return "Too few of these emotions have human ratings to say what the axes mean."
        held_out = ", ".join(
            f"{name} r = {row.cv_r:.2f} (95 % {row.cv_low:.2f} to {row.cv_high:.2f}; chance up to {row.cv_null:.2f})"
            for name, row in self.norms.iterrows()
        )
        axes = " and ".join(
            f"{self.norms.loc[name, 'best_pc']} goes with {name} (|r| = {self.norms.loc[name, 'best_pc_r']:.2f})"
            for name in ("pleasure", "arousal")
        )
        return f"Human ratings of words left out are predicted with {held_out}. Among the first five components {axes}."

    def claims(self) -> tuple[Claim, ...]:
        """Pleasure and arousal over held-out words, and as the first two components."""
        if self.norms.empty:
            return ()
        shared = {"part": "geometry", "source": "paper section 2.3, Fig. 8", "n": int(self.norms.words.iloc[0])}
        shared |= {"of": "rated words", "null_name": "permuted ratings"}
        found = []
        for name, figure in (("pleasure", "PC1: r = 0.81"), ("arousal", "PC2: r = 0.66")):
            row = self.norms.loc[name]
            found.append(
                Claim(
                    claim=f"The directions hold human {name}",
                    statistic="r of ratings with ridge predictions for words left out",
                    value=row.cv_r,
                    low=row.cv_low,
                    high=row.cv_high,
                    null=row.cv_null,
                    paper=figure,
                    **shared,
                )
            )
        for pc, name, figure in ((1, "pleasure", "0.81"), (2, "arousal", "0.66")):
            row = self.norms.loc[name]
            found.append(
                Claim(
                    claim=f"Component {pc} of the directions is {name}",
                    statistic=f"|r| of PC{pc} with rated {name}; no effect: what 95 % of permuted ratings stay below",
                    value=row[f"pc{pc}_r"],
                    low=row[f"pc{pc}_low"],
                    high=row[f"pc{pc}_high"],
                    chance=row.pc_null,
                    null=row.pc_null,
                    paper=f"r = {figure}",
                    **shared,
                )
            )
        return tuple(found)


def geometry(
    vectors: EmotionVectors, layer: int | None = None, metric: str | None = None, clusters: int = 10, seed: int = 0
) -> Geometry:
    """Map, components, clusters and norms of a set of vectors (paper section 2).

    Raises EmolabError for fewer than five emotions.
    """
    if len(vectors) < 5:
        raise EmolabError(f"a map needs at least five emotions, these are {len(vectors)}")
    layer, metric = layer or vectors.chosen_layer, metric or vectors.metric
    coordinates = vectors.coordinates(layer, metric)
    cosines = vectors.cosines(layer, metric)
    components, variance = principal_components(coordinates)
    components.index = pd.Index(vectors.emotions, name="emotion")
    points, settings = umap_points(coordinates, seed)
    cluster, silhouette = cluster_by_direction(components.to_numpy(), min(clusters, len(vectors) - 1), seed)
    norms = norm_table(coordinates, components, vectors.emotions, seed)
    return Geometry(
        points=pd.DataFrame(points, columns=["x", "y"], index=components.index).assign(
            cluster=cluster, **predicted_norms(coordinates, vectors.emotions, seed)
        ),
        components=components,
        variance=variance,
        cosines=cosines,
        order=cosine_order(cosines),
        silhouette=silhouette,
        norms=norms,
        parameters={"umap": settings, "clusters": len(set(cluster)), "seed": seed},
        layer=layer,
        metric=metric,
        model=vectors.info.get("model", "?"),
    )


def umap_points(coordinates: np.ndarray, seed: int = 0) -> tuple[np.ndarray, dict]:
    """[emotion, 2] UMAP of the directions by cosine, and its parameters."""
    import warnings

    from umap import UMAP

    settings = {"n_neighbors": min(15, len(coordinates) - 1), "min_dist": 0.3, "metric": "cosine"}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*n_jobs.*|.*n_neighbors.*|.*k >= N.*")
        _keep_compiled()
        # a spectral start fails on very few points
        start = "spectral" if len(coordinates) > 20 else "random"
        points = UMAP(**settings, init=start, random_state=seed, n_jobs=1).fit_transform(coordinates)
    return np.asarray(points, float), settings


def _keep_compiled() -> None:
    """Let numba keep UMAP's machine code on disk: compiling takes 10 to 20 s, and would again in every process."""
    from umap import layouts, umap_

    for function in (*vars(umap_).values(), *vars(layouts).values()):
        with suppress(AttributeError, RuntimeError):  # not compiled; no folder that can be written
            function.enable_caching()


def principal_components(coordinates: np.ndarray, k: int = 10) -> tuple[pd.DataFrame, pd.Series]:
    """Coordinates [emotion, PC] on the first k principal components, and their shares of variance."""
    centred = coordinates - coordinates.mean(0)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    k = min(k, len(size))
    names = [f"PC{i + 1}" for i in range(k)]
    share = size**2 / (size**2).sum()
    return pd.DataFrame((left * size)[:, :k], columns=names), pd.Series(share[:k], index=names)


def cluster_by_direction(coordinates: np.ndarray, k: int, seed: int = 0) -> tuple[np.ndarray, float]:
    """k-means on unit vectors: [emotion] cluster numbers, and the silhouette in cosine distance."""
    points = unit(coordinates)
    found = KMeans(k, n_init=20, random_state=seed).fit_predict(points)
    return found, float(silhouette_score(points, found, metric="cosine"))


def cosine_order(cosines: pd.DataFrame) -> list[str]:
    """Emotions in the leaf order of average linkage on 1 - cosine, neighbours as alike as can be."""
    distance = np.clip(1 - cosines.to_numpy(), 0, None)
    np.fill_diagonal(distance, 0)
    flat = squareform(distance, checks=False)
    return [cosines.index[i] for i in leaves_list(optimal_leaf_ordering(linkage(flat, "average"), flat))]


def rsa(vectors: EmotionVectors, layers: Sequence[int] | None = None, metric: str | None = None) -> pd.DataFrame:
    """[layer, layer] Spearman correlation of the layers' cosine matrices (upper triangles)."""
    layers = list(layers or vectors.layers)
    triangle = np.triu_indices(len(vectors), 1)
    rows = np.stack([vectors.cosines(layer, metric).to_numpy()[triangle] for layer in layers])
    found = spearmanr(rows, axis=1).statistic if len(layers) > 2 else np.corrcoef(pd.DataFrame(rows).rank(axis=1))
    index = pd.Index(layers, name="layer")
    return pd.DataFrame(found, index=index, columns=index)


# --- human ratings -----------------------------------------------------------------------------------------------


def human_norms(
    vectors: EmotionVectors, layer: int | None = None, metric: str | None = None, seed: int = 0
) -> pd.DataFrame:
    """The table of `norm_table` at one layer and in one metric."""
    coordinates = vectors.coordinates(layer, metric)
    return norm_table(coordinates, principal_components(coordinates)[0], vectors.emotions, seed)


def norm_table(
    coordinates: np.ndarray, components: pd.DataFrame, emotions: Sequence[str], seed: int = 0
) -> pd.DataFrame:
    """How the geometry goes with human pleasure, arousal and dominance (paper section 2, Fig. 8).

    Columns: `cv_r` correlation of ridge predictions for words left out with their ratings, `cv_low`, `cv_high` 95 %
    bootstrap over words, `cv_null` 95th percentile with permuted ratings; `pc1_r`, `pc2_r` absolute correlations of
    the first two components with their intervals; `best_pc`, `best_pc_r`, `best_pc_null` the best of the first five
    and what the best of five reaches by chance; `pc_null` what one component reaches by chance.
    Empty with fewer than 20 rated words.
    """
    rated, rows = _rated(emotions)
    if len(rated) < 20:
        return pd.DataFrame()
    rng = np.random.default_rng(seed)
    points, first_five = unit(coordinates)[rows], components.to_numpy()[rows, :5]
    table = {}
    for name in DIMENSIONS:
        truth = rated[name].to_numpy()
        permuted = np.stack([rng.permutation(truth) for _ in range(PERMUTATIONS)], 1)  # [word, permutation]
        guess = _left_out(points, truth[:, None], rng, REPEATS)[:, 0]
        null = _correlations(_left_out(points, permuted, rng, 1), permuted)
        strength = np.abs(_against(first_five, truth[:, None])[:, 0])  # [component]
        chance = np.abs(_against(first_five, permuted))  # [component, permutation]
        best = int(strength.argmax())
        table[name] = {
            "cv_r": np.corrcoef(guess, truth)[0, 1],
            **_bounds("cv", lambda i, g=guess, t=truth: np.corrcoef(g[i], t[i])[0, 1], len(truth), rng),
            "cv_null": np.quantile(null, 0.95),
            **{
                key: value
                for pc in (0, 1)
                for key, value in {
                    f"pc{pc + 1}_r": strength[pc],
                    **_bounds(
                        f"pc{pc + 1}",
                        lambda i, x=first_five[:, pc], t=truth: abs(np.corrcoef(x[i], t[i])[0, 1]),
                        len(truth),
                        rng,
                    ),
                }.items()
            },
            "best_pc": f"PC{best + 1}",
            "best_pc_r": strength[best],
            "best_pc_null": np.quantile(chance.max(0), 0.95),
            "pc_null": np.quantile(chance[:2], 0.95),
            "words": len(truth),
        }
    return pd.DataFrame.from_dict(table, orient="index").rename_axis("rating")


def predicted_norms(coordinates: np.ndarray, emotions: Sequence[str], seed: int = 0) -> dict[str, np.ndarray]:
    """{dimension: [emotion]} ridge predictions; for rated words by models that never saw their rating."""
    rated, rows = _rated(emotions)
    if len(rated) < 20:
        return {name: np.full(len(emotions), np.nan) for name in DIMENSIONS}
    points, truth = unit(coordinates), rated[list(DIMENSIONS)].to_numpy()  # [word, dimension]
    everywhere = _ridge().fit(points[rows], truth).predict(points)
    everywhere[rows] = _left_out(points[rows], truth, np.random.default_rng(seed), REPEATS)
    return dict(zip(DIMENSIONS, everywhere.T, strict=True))


def _rated(emotions: Sequence[str]) -> tuple[pd.DataFrame, list[int]]:
    norms = data.norms()
    shared = [emotion for emotion in emotions if emotion in norms.index]
    return norms.loc[shared], [list(emotions).index(emotion) for emotion in shared]


def _ridge() -> RidgeCV:
    return RidgeCV(ALPHAS, alpha_per_target=True)


def _left_out(points: np.ndarray, targets: np.ndarray, rng: np.random.Generator, repeats: int) -> np.ndarray:
    """[word, target] predictions of words left out, averaged over repeats of a shuffled k-fold."""
    total = np.zeros(targets.shape)
    for _ in range(repeats):
        folds = KFold(FOLDS, shuffle=True, random_state=int(rng.integers(2**31)))
        for seen, unseen in folds.split(points):
            guess = _ridge().fit(points[seen], targets[seen]).predict(points[unseen])
            total[unseen] += guess.reshape(len(unseen), -1)
    return total / repeats


def _correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson r of matching columns."""
    a, b = (x - x.mean(0) for x in (a, b))
    return (a * b).sum(0) / np.maximum(np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0), 1e-30)


def _against(components: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """[component, target] Pearson r of each with each."""
    a, b = (unit((x - x.mean(0)).T) for x in (components, targets))
    return a @ b.T


def _bounds(name: str, statistic, n: int, rng: np.random.Generator, draws: int = 1000) -> dict[str, float]:
    """95 % percentile bootstrap over n words."""
    values = [statistic(rng.integers(n, size=n)) for _ in range(draws)]
    low, high = np.nanquantile(values, [0.025, 0.975])
    return {f"{name}_low": low, f"{name}_high": high}
