"""Numbers: does a reading rise and fall with a quantity, when nothing else in the message changes?

The claim is that of Sofroniew et al. (2026, arXiv 2604.07729, section 1.6, Fig 3): six templates with a number in them,
read at the last token before the reply. Here the quantities and the values are theirs and the wording is ours. The
twelve signs were registered from what the paper says of its figure, before any model was read.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from emolab.activations import read
from emolab.claims import Claim
from emolab.directions import METRICS
from emolab.experiments.paired import random_probes
from emolab.model import Subject
from emolab.vectors import EmotionVectors

EMOTIONS = ("afraid", "calm", "happy", "sad")
DRAWS = 10_000  # of the bootstrap over templates, and of random emotions


@dataclass(frozen=True)
class Sweep:
    """A message with {x} in it, the values of x, and the signs that the paper's stated result predicts."""

    name: str
    template: str
    values: tuple[int, ...]
    signs: dict[str, int]


SWEEPS = (
    Sweep(
        "painkiller (mg)",
        "My back was hurting, so a moment ago I swallowed {x} mg of a painkiller from the drugstore. What should I do?",
        (500, 1000, 2000, 4000, 8000, 16000),
        {"afraid": 1, "calm": -1},
    ),
    Sweep(
        "without food or drink (hours)",
        "For {x} hours now I have had nothing to eat and nothing to drink. Any advice?",
        (2, 6, 12, 24, 48, 72, 120),
        {"afraid": 1},
    ),
    Sweep(
        "sister's age at her death (years)",
        "I am writing a few lines about my sister, who died when she was {x} years old. How could I begin?",
        (5, 10, 20, 50, 80, 100),
        {"sad": -1, "calm": 1, "happy": 1},
    ),
    Sweep(
        "dog missing (days)",
        "Our dog ran off, and it is {x} days now that nobody has seen him. What can we still try?",
        (2, 7, 14, 25, 50, 100),
        {"sad": 1},
    ),
    Sweep(
        "money left (months)",
        "I run a young company, and what is in the bank will pay our bills for {x} more months. How should I plan?",
        (0, 2, 4, 16, 48, 96),
        {"afraid": -1, "sad": -1, "calm": 1},
    ),
    Sweep(
        "students who passed (of 20)",
        "I teach a class of 20, and {x} of them passed the final exam this week. What do I tell them?",
        (0, 2, 5, 10, 15, 20),
        {"happy": 1, "afraid": -1},
    ),
)


@dataclass(frozen=True)
class Intensity:
    """Readings along six sweeps of a number.

    scores : [(sweep, x), emotion] at the last token before the reply, in sd of neutral tokens, at the layer in use
    signs : [(sweep, emotion)] `predicted` sign; `spearman` of x and score; `signed`, the same turned so that + is as
        predicted; `change` of the score from the first x to the last, in sd
    statistics : [statistic] `right`, the share of predicted signs that come out, and `signed`, the mean signed
        Spearman: value with 95 % interval (bootstrap over sweeps), and for each null (random directions or random
        emotions in place of the four) what 95 % of it stay below and the part p that reach the value
    profile : [layer] both statistics at every layer. To be looked at; nothing is chosen from it
    """

    scores: pd.DataFrame
    signs: pd.DataFrame
    statistics: pd.DataFrame
    profile: pd.DataFrame
    model: str
    layer: int
    metric: str

    def table(self) -> pd.DataFrame:
        """The signs, a row for each sweep and emotion with a prediction."""
        return self.signs

    def figure(self):
        """The six sweeps, and both statistics by layer."""
        return _figure(self)

    def verdict(self) -> str:
        """The result in words."""
        right, signed = self.statistics.loc["right"], self.statistics.loc["signed"]
        right_count, n = int((self.signs.signed > 0).sum()), len(self.signs)
        return (
            f"{right_count} of {n} predicted signs come out in {self.model} at layer {self.layer} ({self.metric}s), "
            f"{right.value:.0%} (95 % {right.low:.0%}-{right.high:.0%}, half by chance); mean signed Spearman "
            f"{signed.value:+.2f} (95 % {signed.low:+.2f} to {signed.high:+.2f}); {signed.random_p:.0%} of random "
            f"directions and {signed.emotions_p:.0%} of random emotions reach as much. From end to end the scores "
            f"change by {self.signs.change.abs().median():.2f} sd of neutral tokens (median). Over the layers the mean "
            f"signed Spearman runs from {self.profile.signed.min():+.2f} to {self.profile.signed.max():+.2f}: "
            + {
                "replicates": "numbers scale the reading.",
                "weak": "a weak sign that numbers scale the reading.",
                "does not replicate": "numbers are not shown to scale the reading.",
            }[self.claims()[0].verdict]
        )

    def claims(self) -> tuple[Claim, ...]:
        """That numbers scale the reading (paper Fig 3)."""
        row = self.statistics.loc["signed"]
        nulls = pd.Series({"random directions": row.random_95, "random emotions": row.emotions_95})
        return (
            Claim(
                claim="A number alone, in a message that stays the same, scales the reading",
                part="reading",
                source="Sofroniew et al. 2026, section 1.6, Fig 3",
                statistic=f"mean Spearman correlation of number and score over {len(self.signs)} registered signs",
                value=float(row.value),
                low=float(row.low),
                high=float(row.high),
                chance=0.0,
                null=float(nulls.max()),
                null_name=f"95 % of {nulls.idxmax()}",
                n=self.signs.index.get_level_values(0).nunique(),
                of="sweeps",
                paper="all twelve signs as stated, a swing of about 0.06 in cosine",
            ),
        )


def intensity(subject: Subject, vectors: EmotionVectors, seed: int = 0) -> Intensity:
    """Read the six sweeps in the chat template and compare their signs with those registered (paper section 1.6).

    Raises EmolabError for vectors of another model, without evidence, or without afraid, calm, happy and sad.
    """
    vectors.check(subject)
    vectors.need_evidence()
    rows = [vectors.index(name) for name in EMOTIONS]
    hidden = {  # each [x, layer, d_model]
        sweep.name: np.stack(
            [read(subject, subject.chat(sweep.template.format(x=x)), vectors.layers)[:, -1] for x in sweep.values]
        )
        for sweep in SWEEPS
    }
    at_layer = {name: states[:, vectors.row()] for name, states in hidden.items()}
    everyone = _scores(vectors, at_layer)  # {sweep: [x, emotion]}
    scores = {name: values[:, rows] for name, values in everyone.items()}
    rng = np.random.default_rng(seed)
    pool = random_probes(vectors, rng)
    randoms = {name: states @ pool.T for name, states in at_layer.items()}  # {sweep: [x, direction]}
    signs = _signs(scores)
    return Intensity(
        scores=_long(scores),
        signs=signs,
        statistics=_statistics(signs, {"random": _null(randoms, rng), "emotions": _null(everyone, rng)}, rng),
        profile=_profile(vectors, hidden, rows),
        model=subject.label,
        layer=vectors.chosen_layer,
        metric=vectors.metric,
    )


def _scores(vectors: EmotionVectors, states: dict[str, np.ndarray], layer: int | None = None) -> dict[str, np.ndarray]:
    """{sweep: [x, emotion]} in sd of neutral tokens, from {sweep: [x, d_model]} at a layer."""
    row = vectors.row(layer)
    scaled = vectors.directions(layer) / vectors.neutral_sd[METRICS.index(vectors.metric), :, row][:, None]
    return {name: (here - vectors.neutral_mean[row]) @ scaled.T for name, here in states.items()}


def correlations(scores: np.ndarray) -> np.ndarray:
    """[column] Spearman correlation of each column of scores [x, column] with the order of x; 0 for a constant one."""
    ranks = rankdata(scores, axis=0)
    ranks = ranks - ranks.mean(0)
    steps = np.arange(len(scores)) - (len(scores) - 1) / 2
    return steps @ ranks / np.maximum(np.linalg.norm(steps) * np.linalg.norm(ranks, axis=0), 1e-30)


def _signs(scores: dict[str, np.ndarray]) -> pd.DataFrame:
    """[(sweep, emotion)] from {sweep: [x, emotion]}, a row for each registered sign."""
    rows = {}
    for sweep in SWEEPS:
        rho = dict(zip(EMOTIONS, correlations(scores[sweep.name]), strict=True))
        change = dict(zip(EMOTIONS, scores[sweep.name][-1] - scores[sweep.name][0], strict=True))
        for emotion, sign in sweep.signs.items():
            row = {"predicted": sign, "spearman": rho[emotion], "signed": sign * rho[emotion]}
            rows[sweep.name, emotion] = row | {"change": change[emotion]}
    return pd.DataFrame(rows).T.rename_axis(["sweep", "emotion"])


def _null(pool: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """{statistic: [draw]} with four columns of {sweep: [x, column]}, drawn at random, in the emotions' place."""
    size = next(iter(pool.values())).shape[1]
    drawn = np.array([rng.choice(size, len(EMOTIONS), replace=False) for _ in range(DRAWS)])  # [draw, emotion]
    signed = []
    for sweep in SWEEPS:
        rho = correlations(pool[sweep.name])
        signed += [sign * rho[drawn[:, EMOTIONS.index(emotion)]] for emotion, sign in sweep.signs.items()]
    return {"right": (np.array(signed) > 0).mean(0), "signed": np.mean(signed, axis=0)}


def _statistics(signs: pd.DataFrame, nulls: dict[str, dict[str, np.ndarray]], rng: np.random.Generator) -> pd.DataFrame:
    rows = {}
    for name, values in (("right", (signs.signed > 0) * 1.0), ("signed", signs.signed)):
        sweeps = values.groupby(level="sweep").agg(["sum", "count"]).to_numpy()  # [sweep, (sum, count)]
        drawn = sweeps[rng.integers(len(sweeps), size=(DRAWS, len(sweeps)))].sum(1)
        low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
        rows[name] = {"value": values.mean(), "low": low, "high": high}
        for null, found in nulls.items():
            rows[name] |= {
                f"{null}_95": np.quantile(found[name], 0.95),
                f"{null}_p": (found[name] >= values.mean() - 1e-9).mean(),
            }
    return pd.DataFrame(rows).T.rename_axis("statistic")


def _profile(vectors: EmotionVectors, hidden: dict[str, np.ndarray], rows: list[int]) -> pd.DataFrame:
    found = {}
    for layer in vectors.layers:
        scores = _scores(vectors, {name: states[:, vectors.row(layer)] for name, states in hidden.items()}, layer)
        signs = _signs({name: values[:, rows] for name, values in scores.items()})
        found[layer] = {"right": (signs.signed > 0).mean(), "signed": signs.signed.mean()}
    return pd.DataFrame(found).T.rename_axis("layer")


def _long(scores: dict[str, np.ndarray]) -> pd.DataFrame:
    index = pd.MultiIndex.from_tuples([(s.name, x) for s in SWEEPS for x in s.values], names=["sweep", "x"])
    return pd.DataFrame(np.concatenate([scores[sweep.name] for sweep in SWEEPS]), index=index, columns=EMOTIONS)


def _figure(result: Intensity):
    import matplotlib.pyplot as plt

    styles = dict(
        zip(EMOTIONS, (("#d55e00", "o-"), ("#0072b2", "s-"), ("#e69f00", "^-"), ("#555555", "D-")), strict=True)
    )
    figure, panels = plt.subplots(2, 4, figsize=(18, 7.4), layout="constrained")
    span = max((rows - rows.iloc[0]).abs().max().max() for _, rows in result.scores.groupby(level="sweep"))
    for axes, sweep in zip(panels[:, :3].flat, SWEEPS, strict=True):
        scores = result.scores.loc[sweep.name]
        for emotion, (colour, style) in styles.items():
            sign = sweep.signs.get(emotion, 0)
            label = f"{emotion} ({'up' if sign > 0 else 'down'} predicted)" if sign else emotion
            alpha, width = (1, 2) if sign else (0.35, 1)
            change = scores[emotion] - scores[emotion].iloc[0]
            axes.plot(range(len(scores)), change, style, color=colour, ms=5, label=label, alpha=alpha, lw=width)
        axes.set_xticks(range(len(scores)), scores.index)
        axes.axhline(0, color="#999999", lw=0.8)
        axes.set(title=sweep.name, xlabel="x (not to scale)", ylabel="change from the first x (sd)")
        axes.set_ylim(-1.1 * span, 1.1 * span)  # one scale for all
        axes.legend(frameon=False, fontsize=8)
    titles = {"right": ("predicted signs that come out", 0.5), "signed": ("mean signed Spearman", 0.0)}
    for axes, (name, (title, chance)) in zip(panels[:, 3], titles.items(), strict=True):
        row = result.statistics.loc[name]
        axes.plot(result.profile.index, result.profile[name], "o-", ms=4, color="#009e73")
        axes.axvline(result.layer, color="#cccccc", lw=6, zorder=0, label="layer in use")
        axes.errorbar(result.layer, row.value, [[row.value - row.low], [row.high - row.value]], fmt="o",
                      color="black", capsize=4, label="95 % interval")  # fmt: skip
        axes.axhline(row.random_95, color="black", ls=":", label="95 % of random directions")
        axes.axhline(chance, color="#999999", lw=0.8)
        axes.set(xlabel="layer", ylabel=title, title=title[0].upper() + title[1:])
    panels[0, 3].legend(frameon=False, fontsize=8)
    plt.close(figure)
    return figure
