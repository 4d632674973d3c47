"""`Concept`: a concept of one's own as a direction, and where it lies among the emotions. `conceive.py` makes it."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from emolab import likeness
from emolab.directions import Labelled, unit
from emolab.geometry import predicted_norms, umap_points
from emolab.likeness import Space
from emolab.vectors import EmotionVectors

OWN = " (own texts)"  # after a name that the vectors hold already
DRAWS = 1000  # of the bootstrap over texts
SETS = 200  # random sets of stories
LIES, PARTLY, ELSEWHERE, UNKNOWN, NOTHING, UNTESTED = (
    "lies where emotions lie", "lies partly where emotions lie", "does not lie where emotions lie",
    "can't be placed while nothing is known of what else its texts share",
    "has no direction of its own in these texts", "can't be judged with so few emotions",
)  # fmt: skip


@dataclass(frozen=True)
class Concept:
    """A concept of one's own as a direction, beside the emotions.

    name : what it is called; with ' (own texts)' if the vectors hold an emotion of that name
    texts : what it was made from; `parts` their settings, if the corpus has them
    centring : what was taken out of the texts: 'parts', 'contrast' or 'genre' (see `conceive.concept`)
    notes : what to bear in mind
    layers : the layers read, rising, in one piece; the chosen layer of the vectors is among them
    vector : [layer, d_model] the direction, of natural length
    points : [text, d_model] the texts at the chosen layer, centred, in the metric's coordinates (`likeness.Space`)
    neutral : [layer][token, d_model] neutral tokens
    """

    name: str
    texts: tuple[str, ...]
    parts: tuple[str, ...]
    centring: str
    notes: tuple[str, ...]
    layers: tuple[int, ...]
    vector: np.ndarray
    points: np.ndarray
    neutral: tuple[np.ndarray, ...]
    space: Space
    vectors: EmotionVectors

    def __repr__(self) -> str:
        return (
            f"Concept({self.name!r}, {len(self.texts)} texts, {self.centring} taken out, {self.vectors.info['model']})"
        )

    def nearest(self, k: int = 10, seed: int = 0) -> pd.DataFrame:
        """[emotion] the k nearest emotions: `cosine` in the vectors' metric, 95 % bootstrap over texts.

        The bootstrap keeps the concept's length fixed, or else every draw would lie farther from everything.
        """
        emotions = unit(self.space.emotion_points(self.centring))
        length = np.linalg.norm(self.points.mean(0))
        drawn = self._drawn(seed) @ emotions.T / length  # [draw, emotion]
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        table = pd.DataFrame({"cosine": emotions @ self.points.mean(0) / length, "low": low, "high": high})
        table.index = pd.Index(self.vectors.emotions, name="emotion")
        return table.nlargest(k, "cosine")

    def norms(self, seed: int = 0, draws: int = 200) -> pd.DataFrame:
        """[dimension] human pleasure, arousal and dominance that its direction predicts, 95 % bootstrap over texts.

        By the ridge of `geometry.predicted_norms`, trained on the rated emotions. NaN with fewer than 20 rated.
        """
        rows = np.vstack([self.points.mean(0), self._drawn(seed)[:draws]])
        names = [*self.vectors.emotions, *(f"\0draw {i}" for i in range(len(rows)))]
        points = np.vstack([self.space.emotion_points(self.centring), rows])
        found = {dimension: values[-len(rows) :] for dimension, values in predicted_norms(points, names).items()}
        table = {
            dimension: [values[0], *np.quantile(values[1:], [0.025, 0.975])] for dimension, values in found.items()
        }
        return pd.DataFrame(table, index=["predicted", "low", "high"]).T.rename_axis("rating")

    @cached_property
    def likeness(self) -> pd.Series:
        """Its share in the span of the emotions, what left-out emotions and non-emotions reach, and the standing.

        `share` of its squared length, free of noise, along the main directions of the emotions (those that hold 60 %
        of their variance), with a 95 % interval (jackknife over texts); `floor`: 95 % of emotions, each left out and
        treated as a concept, lie above; `ceiling`: 95 % of settings and kinds of text, which are no emotions, lie
        below. `standing`: 'lies where emotions lie' at or above the floor and above the ceiling, 'does not' at or
        below the ceiling, 'partly' between. Before that its texts must share a direction (see `quality`). Where only
        the genre could be taken out, an author's manner, which is no emotion, makes the share lower: then 'does not'
        can't be said.
        """
        rows = [i for i, name in enumerate(self.vectors.emotions) if f"{name}{OWN}" != self.name]
        axes = likeness.main_directions(self.space.emotion_points(self.centring)[rows])
        value = likeness.share(self.points, axes)
        n = len(self.points)
        left_out = [likeness.share(np.delete(self.points, i, 0), axes) for i in range(n)]
        error = 1.96 * np.sqrt((n - 1) / n * np.sum((left_out - np.mean(left_out)) ** 2))
        emotions, controls = self.references
        floor, ceiling = emotions.quantile(0.05), controls.quantile(0.95)
        low = UNKNOWN if self.centring == "genre" else ELSEWHERE
        standing = LIES if value >= floor and value > ceiling else PARTLY if value > ceiling else low
        if not self._quality.median_rank < self._quality.null_median_rank:
            standing = NOTHING
        if len(self.vectors) < likeness.FEWEST:
            standing = UNTESTED
        found = {"share": value, "low": value - error, "high": value + error, "directions": len(axes), "floor": floor}
        return pd.Series(found | {"emotions": emotions.median(), "ceiling": ceiling, "standing": standing})

    @cached_property
    def references(self) -> tuple[pd.Series, pd.Series]:
        """(shares of left-out emotions, shares of settings and kinds of text)."""
        return (
            likeness.reference_shares(self.vectors, self.space, self.centring),
            likeness.control_shares(self.vectors, self.space),
        )

    def quality(self) -> pd.Series:
        """Are its own texts recognised, and the emotions' stories not?

        Each text is left out and scored by the direction of the others among the emotions: `top1` and `median_rank`,
        with a 95 % interval (bootstrap over texts). `null_median_rank`: 95 % of random sets of as many stories of
        different emotions lie above. `false_alarms`: the share of held-out stories that score higher on it than on
        any emotion, `by_chance` if it were an emotion like others, and whose stories those are.
        """
        return self._quality

    @cached_property
    def _quality(self) -> pd.Series:
        rng, emotions = np.random.default_rng(0), self.space.emotion_points(self.centring)
        rows = [i for i, name in enumerate(self.vectors.emotions) if f"{name}{OWN}" != self.name]
        rank = likeness.own_ranks(self.points, emotions[rows])
        drawn = np.median(rng.choice(rank, (DRAWS, len(rank))), axis=1)
        sets = likeness.random_sets(self.vectors, self.space, len(rank), self.parts or None, self.centring, SETS, rng)
        null = [np.median(likeness.own_ranks(texts, emotions)) for texts in sets]
        low, high = np.quantile(drawn, [0.025, 0.975])
        found = {"top1": (rank == 1).mean(), "median_rank": np.median(rank), "low": low, "high": high}
        found |= {"null_median_rank": np.quantile(null, 0.05), "among": len(rows) + 1, "texts": len(rank)}
        stories = self.vectors.evidence.choose
        if stories is not None:
            alarms = likeness.false_alarms(stories, self.space, self.points.mean(0))
            often = alarms[alarms > 0].nlargest(3)
            found |= {"false_alarms": alarms.mean(), "by_chance": 1 / (len(emotions) + 1)}
            found["most_by"] = ", ".join(f"{name} ({value:.0%})" for name, value in often.items()) or "none"
        return pd.Series(found, name=self.name)

    def verdict(self) -> str:
        """Is it an emotion? What can be said of it, in plain words, by the rule of `likeness`."""
        found, quality = self.likeness, self.quality()
        near = self.nearest(3)
        if not found.share >= 0:  # also where it is no number
            return " ".join([f"'{self.name}' {found.standing}: left out, no text is like the others.", *self.notes])
        said = [
            f"'{self.name}' {found.standing}.",
            f"{found.share:.0%} of its length squared (95 % {max(found.low, 0):.0%} to {min(found.high, 1):.0%}) lies "
            f"along the {found.directions} main directions of the emotions. Of emotions treated the same, each left "
            f"out, 95 % reach {found.floor:.0%} (median {found.emotions:.0%}); of settings and kinds of text 95 % stay "
            f"below {found.ceiling:.0%}.",
            f"Left out, its texts have a median rank of {quality.median_rank:.0f} among {quality.among} (random sets "
            f"of stories: {quality.null_median_rank:.0f} or more in 95 %).",
            "Nearest: " + ", ".join(f"{name} ({row.cosine:.2f})" for name, row in near.iterrows()) + ".",
        ]
        return " ".join([*said, *self.notes])

    @cached_property
    def _map(self) -> pd.DataFrame:
        points = np.vstack([self.space.emotion_points(self.centring), self.points.mean(0)])
        names = [*self.vectors.emotions, self.name]
        places, _ = umap_points(points)
        table = pd.DataFrame(places, columns=["x", "y"], index=pd.Index(names, name="emotion"))
        return table.assign(pleasure=predicted_norms(points, names)["pleasure"])

    def map(self) -> pd.DataFrame:
        """[emotion] x, y and predicted pleasure of all emotions and, last, the concept: a UMAP made of all of them.

        The map is made anew with the concept in it, by the settings of `geometry`, so it is not placed by hand, and
        the others may stand a little differently than on the map without it.
        """
        return self._map

    def figure(self):
        """Its place on the map, its nearest emotions, and its share beside the references."""
        from emolab.plots import concept_figure

        return concept_figure(self)

    def joined(self) -> EmotionVectors:
        """The emotion vectors with the concept among them, in alphabetical order, for readout, lab and steering.

        They hold the layers that were read. At the chosen layer the probe is exact. At others the stories' covariance
        is not known, and the probe is the mixture of the emotions' probes whose vectors come nearest to the concept's.
        In the evidence its texts stand centred, with settings of the corpus.
        """
        full, rows = self.vectors, [self.vectors.row(layer) for layer in self.layers]
        names = (*full.emotions, self.name)
        order = np.argsort(np.array(names))
        probe = np.stack([self._probe(layer) for layer in self.layers])  # [layer, d_model]
        directions = np.stack([unit(self.vector), probe])  # [metric, layer, d_model]
        sd = np.stack([np.std(directions[:, i] @ tokens.T, axis=-1) for i, tokens in enumerate(self.neutral)], -1)
        with_own = lambda values, own, axis=0: np.concatenate([values, own], axis).take(order, axis)  # noqa: E731
        profile = full.info.get("profile")
        return replace(
            full,
            emotions=tuple(names[i] for i in order),
            layers=self.layers,
            vectors=with_own(full.vectors[:, rows], self.vector[None]).astype(np.float32),
            probes=with_own(full.probes[:, rows], probe[None]).astype(np.float32),
            counts=with_own(full.counts, [len(self.texts)]),
            mean=full.mean[rows],
            residual_norm=full.residual_norm[rows],
            neutral_mean=full.neutral_mean[rows],
            neutral_sd=with_own(full.neutral_sd[:, :, rows], sd[:, None], 1).astype(np.float32),
            neutral_components=full.neutral_components[rows],
            info=full.info
            | {"concepts": [*full.info.get("concepts", []), self.name]}
            | ({"profile": {key: [values[row] for row in rows] for key, values in profile.items()}} if profile else {}),
            evidence=replace(full.evidence, train=self._with_texts(full.evidence.train)),
        )

    def _with_texts(self, train: Labelled) -> Labelled:
        parts = self.parts or [self.space.parts[i % len(self.space.parts)] for i in range(len(self.points))]
        effects = self.space.effects[[self.space.parts.index(part) for part in parts]]
        means = self.space.mean + self.space.back(self.points + effects)
        added = (means.astype(train.means.dtype), np.full(len(means), self.name), np.array(parts))
        return Labelled(*(np.concatenate(pair) for pair in zip((train.means, train.emotions, train.parts), added)))  # noqa: B905

    def _probe(self, layer: int) -> np.ndarray:
        """[d_model] at a layer, of length 1 in its metric."""
        if layer == self.vectors.chosen_layer and self.vectors.metric == "probe":
            return self.space.probe(self.points.mean(0))
        row, own = self.vectors.row(layer), self.vector[self.layers.index(layer)].astype(float)
        vectors, probes = (x[:, row].astype(float) for x in (self.vectors.vectors, self.vectors.probes))
        lengths = np.einsum("ed,ed->e", probes, vectors)  # of the vectors, in the metric
        mixture = np.linalg.lstsq(vectors.T, own, rcond=1e-2)[0]
        probe = (mixture * lengths) @ probes
        return probe / np.sqrt(max(probe @ (mixture @ vectors), 1e-30))

    def _drawn(self, seed: int) -> np.ndarray:
        """[draw, d_model] means of texts drawn with replacement."""
        n = len(self.points)
        counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), DRAWS)
        return counts @ self.points / n
