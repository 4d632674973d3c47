"""How good are the vectors? Identification of stories, beside lexical baselines and nulls, with intervals.

Everything is computed at the chosen layer from the story means that came with the vectors; no model runs.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from emolab.claims import Claim
from emolab.directions import METRICS, Labelled, fit, identify, left_out_ranks, probes_of, summary, unit
from emolab.errors import EmolabError
from emolab.vectors import EmotionVectors, Evidence

DRAWS = 2000  # of the bootstrap over emotions
SEEDS = 10  # of each null
WORDS = "words (TF-IDF)"
TEXTS = {"choose": "implicit stories", "test": "second authors", "train": "left-out settings"}


@dataclass(frozen=True)
class Quality:
    """The quality report of a set of vectors.

    identification : for each set of texts and each scorer top-1 with its 95 % interval (bootstrap over emotions),
        top-5 and median rank
    gain : for each set of texts how much more the metric in use names right than words alone do, on the same texts,
        with its 95 % interval
    nulls : top-1 and top-5 of shuffled labels and of random directions on the same texts, mean and maximum of seeds
    split_half : [emotion] cosine between vectors from two halves of the settings
    split_half_null : the same on average with shuffled labels
    profile : top-1 by layer and metric
    """

    identification: pd.DataFrame
    gain: pd.DataFrame
    nulls: pd.DataFrame
    split_half: pd.Series
    split_half_null: float
    profile: pd.DataFrame
    layer: int
    metric: str
    n_emotions: int

    def table(self) -> pd.DataFrame:
        """The identification table with the nulls under it (their low and high: the range over seeds)."""
        nulls = self.nulls.rename(columns={"min": "low", "max": "high"})
        return pd.concat([self.identification, pd.concat({"null": nulls}, names=["texts", "scorer"])])

    def row(self, role: str, scorer: str | None = None) -> pd.Series | None:
        """One line: role 'choose', 'test' or 'train'; scorer 'vector', 'probe' or 'words'. None if not there."""
        key = (TEXTS[role], WORDS if scorer == "words" else scorer or self.metric)
        return self.identification.loc[key] if key in self.identification.index else None

    def figure(self):
        """Top-1 by layer, and by set of texts beside words and nulls."""
        from emolab.plots import quality_figure

        return quality_figure(self)

    def verdict(self) -> str:
        """The report in a few sentences."""
        role = "choose" if self.row("choose") is not None else "train"
        own, words = self.row(role), self.row(role, "words")
        said = (
            f"At layer {self.layer} the {self.metric}s name the emotion of {own.top1:.0%} of the {TEXTS[role]} (95 % "
            f"{own.low:.0%}-{own.high:.0%}), the true one among {self.n_emotions}; the best null names "
            f"{self.nulls['max'].max():.1%}."
        )
        if words is not None:
            more = self.gain.loc[TEXTS[role]]
            adds = "adds what words alone do not give" if more.low > 0 else "is not shown to add anything to the words"
            said += (
                f" Words alone name {words.top1:.0%}: the model {adds} (difference {100 * more.top1:.0f} points, 95 % "
                f"{100 * more.low:.0f} to {100 * more.high:.0f})."
            )
        return f"{said} Two halves of the settings agree with a mean cosine of {self.split_half.mean():.2f}."

    def claims(self) -> tuple[Claim, ...]:
        """Identification of stories that never name the emotion, against words alone and the best null."""
        found = []
        for role, authors in (("choose", "our first authors"), ("test", "other authors")):
            own, words = self.row(role), self.row(role, "words")
            if own is None:
                continue
            found.append(
                Claim(
                    claim=f"The vectors identify the emotion of stories that only show it ({authors})",
                    part="reading",
                    source="paper section 1.2; words alone as the bar is ours",
                    statistic=f"share of stories with their emotion first of {self.n_emotions}; no effect: words alone",
                    value=own.top1,
                    low=own.low,
                    high=own.high,
                    chance=1 / self.n_emotions if words is None else words.top1,
                    null=self.nulls["max"].max(),
                    null_name="shuffled labels, random directions",
                    n=int(own.texts),
                    of="stories",
                    paper="not reported",
                )
            )
        return tuple(found)


def quality(vectors: EmotionVectors, seed: int = 0) -> Quality:
    """The quality report. Raises EmolabError if the vectors come without the story means they are judged by."""
    evidence = vectors.evidence
    if evidence is None:
        raise EmolabError(
            "these vectors come without the story means they are judged by: load the whole file (its "
            ".evidence.safetensors must lie beside it), not a selection of emotions, or make them with extract()"
        )
    rng = np.random.default_rng(seed)
    halves, halves_null = split_half(evidence.train, rng)
    found = _ranks(vectors)
    return Quality(
        identification=_table(
            {key: with_interval(rank == 1, emotions, rng) | summary(rank) for key, (rank, emotions) in found.items()}
        ),
        gain=_gain(found, vectors.metric, rng),
        nulls=_nulls(evidence, vectors.metric, rng),
        split_half=halves,
        split_half_null=halves_null,
        profile=pd.DataFrame(vectors.info["profile"]).set_index("layer"),
        layer=evidence.layer,
        metric=vectors.metric,
        n_emotions=len(vectors),
    )


def _ranks(vectors: EmotionVectors) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
    """{(texts, scorer): (rank of each text's emotion, the texts' emotions)}."""
    evidence = vectors.need_evidence()
    directions = {metric: vectors.directions(evidence.layer, metric) for metric in METRICS}
    genre = None if evidence.choose is None else evidence.choose.means.mean(0)
    found = {}
    for role, name in TEXTS.items():
        texts: Labelled | None = getattr(evidence, role)
        if texts is None:
            continue
        if role == "train":
            ranks, texts = left_out_ranks(texts), texts[np.argsort(texts.parts, kind="stable")]
        else:
            ranks = {metric: identify(directions[metric], vectors.emotions, texts, genre) for metric in METRICS}
        if role in evidence.lexical:
            ranks[WORDS] = evidence.lexical[role]
        found |= {(name, scorer): (r, texts.emotions) for scorer, r in ranks.items() if len(r) == len(texts)}
    return found


def _gain(found: dict, metric: str, rng: np.random.Generator) -> pd.DataFrame:
    rows = {}
    for (name, scorer), (rank, emotions) in found.items():
        if scorer == metric and (name, WORDS) in found:
            more = (rank == 1) * 1.0 - (found[name, WORDS][0] == 1)
            rows[name] = with_interval(more, emotions, rng)
    return pd.DataFrame.from_dict(rows, orient="index", columns=["top1", "low", "high", "texts"])


def _table(rows: dict[tuple[str, str], dict]) -> pd.DataFrame:
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index = pd.MultiIndex.from_tuples(table.index, names=["texts", "scorer"])
    return table[["top1", "low", "high", "top5", "median_rank", "texts"]]


def with_interval(hits: np.ndarray, emotions: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    """Mean of [text] hits with a 95 % interval, by a bootstrap over emotions (their texts hang together)."""
    groups = pd.Series(hits * 1.0).groupby(emotions).agg(["sum", "count"]).to_numpy()  # [emotion, (sum, count)]
    drawn = groups[rng.integers(len(groups), size=(DRAWS, len(groups)))].sum(1)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    return {"top1": float(np.mean(hits)), "low": low, "high": high, "texts": len(hits)}


def _nulls(evidence: Evidence, metric: str, rng: np.random.Generator) -> pd.DataFrame:
    """Top-1 over SEEDS of labels shuffled within settings, and of random directions, on held-out stories."""
    train = evidence.train
    texts = evidence.choose if evidence.choose is not None else train
    fitted = fit(train)
    spread = np.linalg.cholesky(fitted.metric)  # activations vary like spread @ noise
    shape = fitted.vectors.shape

    def as_read(vectors: np.ndarray) -> np.ndarray:
        return unit(vectors) if metric == "vector" else probes_of(vectors, fitted.metric)

    def top1(directions: np.ndarray) -> float:
        return summary(identify(directions, fitted.emotions, texts))["top1"]

    draws = {
        "shuffled labels": lambda: fit(shuffled(train, rng)).directions(metric),
        "random directions": lambda: unit(rng.standard_normal(shape)),
        "random directions, matched variance": lambda: as_read(rng.standard_normal(shape) @ spread.T),
    }
    found = {name: [top1(draw()) for _ in range(SEEDS)] for name, draw in draws.items()}
    return pd.DataFrame(found).agg(["mean", "min", "max"]).T.rename_axis("null").rename(columns={"mean": "top1"})


def shuffled(stories: Labelled, rng: np.random.Generator) -> Labelled:
    """The same stories with their emotions permuted within each part."""
    emotions = stories.emotions.copy()
    for part in np.unique(stories.parts):
        rows = np.flatnonzero(stories.parts == part)
        emotions[rows] = emotions[rng.permutation(rows)]
    return Labelled(stories.means, emotions, stories.parts)


def split_half(stories: Labelled, rng: np.random.Generator, splits: int = 10) -> tuple[pd.Series, float]:
    """[emotion] cosine of vectors from two random halves of the parts, averaged over splits, and its null.

    Computed on the raw vectors. NaN if there are fewer than two parts.
    """
    parts = np.unique(stories.parts)
    names = np.unique(stories.emotions)
    if len(parts) < 2:
        return pd.Series(np.nan, index=names), float("nan")

    def agreement(texts: Labelled) -> pd.Series:
        half = np.isin(texts.parts, rng.permutation(parts)[: len(parts) // 2])
        fits = [fit(texts[rows]) for rows in (half, ~half)]
        sides = [pd.DataFrame(unit(f.vectors), index=f.emotions) for f in fits]
        return (sides[0] * sides[1]).sum(axis=1, skipna=False)

    real = pd.concat([agreement(stories) for _ in range(splits)], axis=1).mean(axis=1)
    null = pd.concat([agreement(shuffled(stories, rng)) for _ in range(splits)], axis=1).mean(axis=1)
    return real.rename("split-half cosine"), float(null.mean())
