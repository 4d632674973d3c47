"""Implicit emotions: messages that name no feeling, read at the last token before the reply.

The claim is that of Sofroniew et al. (2026, arXiv 2604.07729, section 1.5, Fig 2), who show a 12 x 12 grid at that
token. Here 72 messages of our own, three for each of 24 emotions, are identified at that token and over the message's
own tokens, beside permuted labels, random directions, and a classifier that counts words. Layer and metric are those
that stories chose; no message had a say.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from emolab import data
from emolab.claims import Claim
from emolab.directions import lexical_ranks, ranks
from emolab.errors import EmolabError
from emolab.experiments.paired import random_probes
from emolab.experiments.scenarios import PLACES, read_places
from emolab.geometry import cosine_order
from emolab.model import Subject
from emolab.vectors import EmotionVectors

PAPER = (
    *("happy", "inspired", "loving", "proud", "calm", "desperate", "angry", "guilty", "sad", "afraid", "nervous"),
    "surprised",
)  # the paper's Fig 2
WORDS = "words (TF-IDF)"
DRAWS = 2000  # of the bootstrap over emotions, and of permuted labels
SETS = 1000  # of random directions
NULLS = ("permuted labels", "random directions")


@dataclass(frozen=True)
class Implicit:
    """How well messages that name no feeling are told apart.

    scores : [message, (place, emotion)] scores after the messages' mean is taken off, for all emotions of the vectors;
        in sd over the messages. The index is (id, true emotion)
    statistics : for each group of candidates (the messages' own emotions, the paper's, all) and each place, and for
        word counts: `top1` with its 95 % interval (bootstrap over emotions, whose messages hang together), `top3`,
        `mean_rank`, what 95 % of permuted labels and of sets of random directions stay below in top-1, the part p of
        permuted labels that reach the top-1 found, numbers of candidates and messages
    gain : for each group and place how much more is named than by word counts, on the same messages, with 95 % interval
    """

    scores: pd.DataFrame
    statistics: pd.DataFrame
    gain: pd.DataFrame
    model: str
    layer: int
    metric: str

    def table(self) -> pd.DataFrame:
        """The statistics, a row for each group of candidates and place."""
        return self.statistics

    def figure(self):
        """Mean scores of each emotion's messages as a grid, at both places, and top-1 beside the nulls."""
        return _figure(self)

    def verdict(self) -> str:
        """The result in words, a sentence for each place."""
        group = self.statistics.index[0][0]  # the messages' own emotions
        words = self.statistics.loc[(group, WORDS)]
        said = [
            f"{words.messages:.0f} messages that name no feeling, read by {self.model} at layer {self.layer} "
            f"({self.metric}s), {words.candidates:.0f} candidates. Words alone name {words.top1:.0%}."
        ]
        for place in PLACES:
            row, more = self.statistics.loc[(group, place)], self.gain.loc[(group, place)]
            if more.low > 0:
                against = "more than words alone do"
            elif more.high < 0:
                against = "less than words alone do"
            else:
                against = "not shown to differ from words alone"
            said.append(
                f"{place.capitalize()}: {row.top1:.0%} named (95 % {row.low:.0%}-{row.high:.0%}), {row.top3:.0%} among "
                f"the first three, mean rank {row.mean_rank:.1f}; 95 % of permuted labels stay below "
                f"{row[NULLS[0]]:.0%}, of random directions below {row[NULLS[1]]:.0%}; {against}."
            )
        return " ".join(said)

    def claims(self) -> tuple[Claim, ...]:
        """That the emotion is read at the reply's start, and over the message (paper Fig 2)."""
        return tuple(self._claim(place) for place in PLACES)

    def _claim(self, place: str) -> Claim:
        group = self.statistics.index[0][0]
        row, words = self.statistics.loc[(group, place)], self.statistics.loc[(group, WORDS), "top1"]
        nulls = pd.Series({f"95 % of {name}": row[name] for name in NULLS} | {"words alone": words}, dtype=float)
        where = "at the reply's start" if place == PLACES[0] else "over the message"
        return Claim(
            claim=f"Emotions that a message implies and does not name are read {where}",
            part="reading",
            source="Sofroniew et al. 2026, section 1.5, Fig 2",
            statistic=f"share of messages whose emotion comes first among {row.candidates:.0f}, {place}",
            value=float(row.top1),
            low=float(row.low),
            high=float(row.high),
            chance=1 / float(row.candidates),
            null=float(nulls.max()),
            null_name=str(nulls.idxmax()),
            n=int(row.messages),
            of="messages",
            paper="a strong diagonal on 12 messages, no number given",
        )


def implicit_scenarios(subject: Subject, vectors: EmotionVectors, seed: int = 0) -> Implicit:
    """Read the messages in the chat template and identify their emotions (paper section 1.5).

    Activations are centred on the mean over the messages; the metric is the one in use.

    Raises EmolabError for vectors of another model, without evidence, with fewer than two of the messages' emotions,
    or a message beyond the context window.
    """
    vectors.check(subject)
    vectors.need_evidence()
    prompts = [prompt for prompt in data.prompts("scenarios") if prompt["emotion"] in vectors.emotions]
    truth = np.array([prompt["emotion"] for prompt in prompts])
    if len(set(truth)) < 2:
        named = sorted({prompt["emotion"] for prompt in data.prompts("scenarios")})
        raise EmolabError(
            f"these vectors hold {len(set(truth))} of the messages' emotions: have at least two of {named}"
        )
    read = np.stack([read_places(subject, prompt["text"], vectors.chosen_layer) for prompt in prompts])
    centred = read - read.mean(0)  # [message, place, d_model]
    rng = np.random.default_rng(seed)
    directions = random_probes(vectors, rng)  # that vary as stories of one emotion do
    rows, gain = {}, {}
    for group, names in _groups(truth, vectors).items():
        kept = np.isin(truth, names)
        words = _word_ranks(names, prompts, kept)
        for number, place in enumerate(PLACES):
            activations = centred[kept, number]
            scores = activations @ vectors[names].directions().T  # [message, emotion]
            found = ranks(scores, names, truth[kept])
            random = _random_top1(directions @ activations.T, names, truth[kept], rng)
            rows[group, place] = _statistics(found, truth[kept], len(names), rng) | {
                **_permuted(scores, names, truth[kept], rng),
                NULLS[1]: np.quantile(random, 0.95),
            }
            gain[group, place] = _interval((found == 1) * 1.0 - (words == 1), truth[kept], rng)
        rows[group, WORDS] = _statistics(words, truth[kept], len(names), rng)
    index = pd.MultiIndex.from_arrays([[prompt["id"] for prompt in prompts], truth], names=["id", "emotion"])
    return Implicit(
        scores=_all_scores(centred, vectors, index),
        statistics=pd.DataFrame(rows).T.rename_axis(["candidates", "read at"]),
        gain=pd.DataFrame(gain, index=["gain", "low", "high"]).T.rename_axis(["candidates", "read at"]),
        model=subject.label,
        layer=vectors.chosen_layer,
        metric=vectors.metric,
    )


def _groups(truth: np.ndarray, vectors: EmotionVectors) -> dict[str, list[str]]:
    """{name: candidates}: the messages' own emotions, the paper's as far as the vectors have them, all."""
    own = sorted(set(truth))
    found = {f"the messages' {len(own)}": own}
    paper = [name for name in PAPER if name in vectors.emotions]
    if len(set(paper) & set(own)) > 1:
        found[f"the paper's {len(paper)}"] = paper
    if len(vectors) > len(own):
        found[f"all {len(vectors)}"] = list(vectors.emotions)
    return found


def _word_ranks(names: list[str], prompts: list[dict], kept: np.ndarray) -> np.ndarray:
    """[kept message] rank of the true emotion by word counts alone, trained on emolab's stories."""
    train = data.stories(emotions=sorted(set(names) & set(data.emotions())))
    messages = [data.Story(prompt["emotion"], prompt["text"]) for prompt in prompts]
    return lexical_ranks(train, [messages[i] for i in np.flatnonzero(kept)], genre=messages)


def _statistics(rank: np.ndarray, truth: np.ndarray, candidates: int, rng: np.random.Generator) -> dict[str, float]:
    value, low, high = _interval((rank == 1) * 1.0, truth, rng)
    row = {"top1": value, "low": low, "high": high, "top3": (rank <= 3).mean(), "mean_rank": rank.mean()}
    return row | {"candidates": candidates, "messages": len(rank)}


def _interval(values: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> tuple[float, float, float]:
    """Mean of [message] values with its 95 % interval, by a bootstrap over emotions."""
    groups = pd.Series(values).groupby(truth).agg(["sum", "count"]).to_numpy()  # [emotion, (sum, count)]
    drawn = groups[rng.integers(len(groups), size=(DRAWS, len(groups)))].sum(1)
    return float(values.mean()), *np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])


def _permuted(scores: np.ndarray, names: list[str], truth: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    """Top-1 when the messages of each emotion carry the name of another: 95th percentile, and p of the one found."""
    first, own = scores.argmax(1), sorted(set(truth))
    number, columns = np.searchsorted(own, truth), np.array([names.index(name) for name in own])
    swapped = rng.permuted(np.tile(columns, (DRAWS, 1)), axis=1)  # [draw, emotion]
    null = (swapped[:, number] == first).mean(1)
    found = (columns[number] == first).mean()
    return {NULLS[0]: np.quantile(null, 0.95), "p": ((null >= found).sum() + 1) / (DRAWS + 1)}


def _random_top1(pool: np.ndarray, names: list[str], truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[set] top-1 of SETS sets of random directions, one for each candidate, from scores [direction, message]."""
    own = np.array([names.index(name) for name in truth])
    sets = [rng.choice(len(pool), len(names), replace=False) for _ in range(SETS)]
    return np.array([(pool[drawn].argmax(0) == own).mean() for drawn in sets])


def _all_scores(centred: np.ndarray, vectors: EmotionVectors, index: pd.MultiIndex) -> pd.DataFrame:
    """[message, (place, emotion)] in sd over the messages."""
    scores = np.einsum("mpd,ed->mpe", centred, vectors.directions())
    scores = scores / np.maximum(scores.std(0), 1e-30)
    columns = pd.MultiIndex.from_product([PLACES, vectors.emotions])
    return pd.DataFrame(scores.reshape(len(index), -1), index=index, columns=columns)


def _figure(result: Implicit):
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 3, figsize=(19, 6.6), layout="constrained", width_ratios=[1, 1, 0.75])
    own = sorted(set(result.scores.index.get_level_values("emotion")))
    own = cosine_order(result.scores[PLACES[1]][own].corr().fillna(0))  # like beside like
    for axes, place in zip(panels, PLACES, strict=False):
        grid = result.scores[place].groupby(level="emotion").mean().loc[own, own]
        image = axes.imshow(grid, cmap="RdBu_r", vmin=-2, vmax=2)
        axes.set_xticks(range(len(own)), own, rotation=90)
        axes.set_yticks(range(len(own)), own)
        axes.set(title=f"Read at: {place}", xlabel=result.metric, ylabel="messages meant to call for")
    figure.colorbar(image, ax=panels[:2], shrink=0.6).set_label("score (sd over the messages)")
    axes, width = panels[2], 0.26
    colours = {PLACES[0]: "#d55e00", PLACES[1]: "#0072b2", WORDS: "#777777"}
    groups = list(dict.fromkeys(result.statistics.index.get_level_values(0)))
    for i, (scorer, colour) in enumerate(colours.items()):
        rows = result.statistics.xs(scorer, level=1).loc[groups]
        x = np.arange(len(groups)) + (i - 1) * width
        error = [rows.top1 - rows.low, rows.high - rows.top1]
        axes.bar(x, rows.top1, width * 0.92, yerr=error, color=colour, capsize=3, label=scorer)
        for null, style in zip(NULLS, ("-", ":"), strict=True):
            label = "" if i else f"95 % of {null} stay below"
            if scorer != WORDS:
                axes.hlines(rows[null], x - width / 2, x + width / 2, colors="black", ls=style, label=label)
    axes.set_xticks(range(len(groups)), [group.replace(" ", "\n", 1) for group in groups])
    axes.set(ylabel="true emotion first (share of messages)", ylim=(0, 1.02), title="Named right, 95 % intervals")
    axes.set_xlabel("candidates")
    axes.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    plt.close(figure)
    return figure
