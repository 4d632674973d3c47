"""Expectation and setback: is the same bad news read as worse after high expectations than after low ones?

The claim comes from popular writing about emotion vectors: what a setback stands for depends on what was expected, as
for a child who was promised much. Here 24 pieces of news follow an opening full of hope and one with little hope. The
words of the news are the same, so what differs on them comes from the opening. Two things may come from there: the
meaning that the news has after it, and the opening's own mood, still in the state. A plain, eventless line after the
same openings measures the second, and is taken off.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from emolab import data
from emolab.activations import read
from emolab.claims import Claim
from emolab.directions import METRICS
from emolab.experiments import paired
from emolab.model import Subject
from emolab.vectors import EmotionVectors

FAMILIES = {
    "hurt": (("heartbroken", "hurt", "upset", "humiliated", "mortified"), 1),
    "sadness": (("sad", "unhappy", "dispirited", "gloomy", "miserable"), 1),
    "frustration": (("frustrated", "exasperated", "bitter", "indignant", "resentful"), 1),
    "surprise": (("surprised", "astonished", "shocked", "dumbstruck", "bewildered"), 1),
    "resignation": (("resigned", "indifferent", "listless", "weary", "bored"), -1),
}  # emotions, and the predicted sign of high - low; chosen before anything was read
CHECK = {"hope": (("hopeful", "optimistic", "eager", "self-confident", "excited"), 1)}  # on the opening; no claim
PLACES = ("opening", "news", "last token", "news, mood taken off")
PLAIN = "A car goes by in the street. There is a clock on the wall, and beside the clock hangs a calendar for the year."
SOURCE = "popular account of emotion vectors, after Sofroniew et al. (2026)"


@dataclass(frozen=True)
class Setbacks:
    """Changes from low to high expectations, and their statistics.

    changes : [pair, (place, emotion)] high - low in sd of neutral tokens, all emotions. Places: the mean over the
        opening (a check: hope is there), over the news, the last token of the news, and the news less the same
        difference on a plain line after the same openings
    statistics : a row for each place and family, see `experiments.paired.statistics`
    """

    changes: pd.DataFrame
    statistics: pd.DataFrame
    model: str
    layer: int
    metric: str

    def table(self) -> pd.DataFrame:
        """The statistics, a row for each place and family."""
        return self.statistics

    def emotions(self, place: str = PLACES[-1], k: int = 8) -> pd.Series:
        """The k emotions that rise and the k that fall most; to look at, no test: they are picked after the fact."""
        mean = self.changes[place].mean().sort_values()
        return pd.concat([mean.iloc[-k:][::-1], mean.iloc[:k]]).rename("high - low (sd)")

    def claims(self) -> tuple[Claim, ...]:
        """One for each family, on the news with the opening's mood taken off."""
        return tuple(
            paired.share_claim(
                self.statistics.loc[(PLACES[-1], family)],
                len(self.changes),
                claim=f"The same bad news reads as {'more' if sign > 0 else 'less'} {family} after high expectations "
                "than after low ones",
                part="reading",
                source=SOURCE,
                statistic="share of pairs that change as predicted on the words of the news, the difference on a plain "
                "line taken off",
                paper="no figure",
            )
            for family, (_, sign) in FAMILIES.items()
        )

    def figure(self):
        """Mean changes of the families with intervals, place by place, and the shares beside their nulls."""
        return _figure(self)

    def verdict(self) -> str:
        """The result in words, a sentence for each family."""
        hope = self.statistics.loc[(PLACES[0], "hope")]
        said = [
            f"{len(self.changes)} pieces of bad news read by {self.model} at layer {self.layer} ({self.metric}s). "
            f"Check: hope is higher in the hopeful opening in {hope.share:.0%} of pairs ({hope.change:+.2f} sd, 95 % "
            f"{hope.change_low:+.2f} to {hope.change_high:+.2f})."
        ]
        for claim, (family, (_, sign)) in zip(self.claims(), FAMILIES.items(), strict=True):
            news, row = (self.statistics.loc[(place, family)] for place in (PLACES[1], PLACES[-1]))
            said.append(
                f"{family.capitalize()} (predicted {'up' if sign > 0 else 'down'}) changes by {news.change:+.2f} sd on "
                f"the news, {row.change:+.2f} (95 % {row.change_low:+.2f} to {row.change_high:+.2f}; sign flips p = "
                f"{max(row.sign_flip_p, 1 / paired.DRAWS):.1g}) with the mood taken off; as predicted in "
                f"{row.share:.0%} of pairs (95 % {row.low:.0%}-{row.high:.0%}), nulls up to {claim.null:.0%}: "
                f"{claim.verdict}."
            )
        return " ".join(said)


def setbacks(subject: Subject, vectors: EmotionVectors, seed: int = 0) -> Setbacks:
    """Read the 24 pieces of news after both openings, as plain text, and test the families.

    Raises EmolabError for vectors of another model, without evidence, or without the emotions of the families.
    """
    vectors.check(subject)
    paired.check_families(vectors, FAMILIES | CHECK)
    rows, layer = data.prompts("setbacks"), vectors.chosen_layer
    gaps = np.stack(
        [_places(subject, r["high"], r["news"], layer) - _places(subject, r["low"], r["news"], layer) for r in rows]
    )  # [pair, place, d_model]
    sd = vectors.neutral_sd[METRICS.index(vectors.metric), :, vectors.row()]
    scaled = vectors.directions() / sd[:, None]  # [emotion, d_model]
    rng = np.random.default_rng(seed)
    directions = paired.random_probes(vectors, rng)
    changes, found = {}, {}
    for number, place in enumerate(PLACES):
        scores = pd.DataFrame(gaps[:, number] @ scaled.T, columns=vectors.emotions)
        size = len(FAMILIES["hurt"][0])
        nulls = paired.null_shares(gaps[:, number], scores.to_numpy(), directions, size, rng)
        changes |= {(place, name): scores[name].to_numpy() for name in scores}
        for family, (names, sign) in (FAMILIES | CHECK).items():
            found[place, family] = paired.statistics(
                sign * scores[list(names)].mean(axis=1).to_numpy(), sign, nulls, rng
            )
    table = pd.DataFrame(found).T.rename_axis(["place", "family"])
    index = pd.Index([row["id"] for row in rows], name="pair")
    return Setbacks(pd.DataFrame(changes, index=index), table, subject.name, layer, vectors.metric)


def _places(subject: Subject, opening: str, news: str, layer: int) -> np.ndarray:
    """[place, d_model] as in PLACES; the last one is the news less the plain line after the same opening."""
    before, after, last = _parts(subject, opening, news, layer)
    plain = _parts(subject, opening, PLAIN, layer)[1]
    return np.stack([before, after, last, after - plain])


def _parts(subject: Subject, opening: str, then: str, layer: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[d_model] means over the opening (without token 0) and over what follows, and the last token."""
    text = f"{opening} {then}"
    hidden = read(subject, text, [layer])[0]  # [token, d_model]
    follows = np.array([end > len(opening) + 1 for _, end in subject.spans(text)])
    return hidden[1:][~follows[1:]].mean(0), hidden[follows].mean(0), hidden[-1]


def _figure(result: Setbacks):
    import matplotlib.pyplot as plt

    styles = dict(zip(PLACES, ("#999999", "#56b4e9", "#e69f00", "#0072b2"), strict=True))
    figure, (left, right) = plt.subplots(1, 2, figsize=(13.5, 5), layout="constrained")
    for shift, (place, colour) in zip((-0.27, -0.09, 0.09, 0.27), styles.items(), strict=True):
        rows = result.statistics.loc[place].loc[list(FAMILIES)]
        y, x = np.arange(len(rows)) + shift, rows.change
        error = [x - rows.change_low, rows.change_high - x]
        left.errorbar(x, y, xerr=error, fmt="os^D"[PLACES.index(place)], color=colour, capsize=3, label=place)
    rows = result.statistics.loc[PLACES[-1]].loc[list(FAMILIES)]
    y = np.arange(len(rows))
    error = [rows.share - rows.low, rows.high - rows.share]
    right.barh(y, rows.share, 0.5, xerr=error, color=styles[PLACES[-1]], capsize=4)
    for i, (_, row) in enumerate(rows.iterrows()):
        for kind, line in (("random", ":"), ("families", "--")):
            label = "" if i else f"95 % of random {'directions' if kind == 'random' else 'families'}"
            right.plot([row[f"{kind}_95"]] * 2, [i - 0.35, i + 0.35], f"k{line}", label=label)
    names = [f"{name} ({'up' if sign > 0 else 'down'})" for name, (_, sign) in FAMILIES.items()]
    for axes in (left, right):
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
    left.axvline(0, color="#999999", lw=0.8)
    left.set(xlabel="high - low expectations (sd of neutral tokens)", title="Mean change, 95 % over pairs")
    left.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=4, columnspacing=1)
    right.axvline(0.5, color="#999999", lw=0.8)
    right.set(xlabel="share of pairs", xlim=(0, 1.02), title="Change as predicted on the news, mood taken off")
    right.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    plt.close(figure)
    return figure
