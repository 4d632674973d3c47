"""Danger against safety: does a dangerous message raise fear over its safe twin, and lower calm?

The claim is that of Sofroniew et al. (2026, arXiv 2604.07729), who read the last token before the reply. Here each of
40 messages has a twin alike in people, place and length; what is tested is the difference within the pairs. Read at
the layer and by the metric that the vectors were chosen for, on stories, without these messages.
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
    "fear": (("afraid", "frightened", "panicked", "scared", "terrified"), 1),
    "calm": (("at ease", "calm", "peaceful", "relaxed", "serene"), -1),
}  # emotions, and the predicted sign of danger - safe
PLACES = ("last token", "message")
SOURCE = "Anthropic's article on Sofroniew et al. 2026; section 1.6, Fig 3"


@dataclass(frozen=True)
class DangerSafe:
    """Changes from the safe to the dangerous message of each pair, and their statistics.

    changes : [pair, (place, emotion)] danger - safe, in sd of neutral tokens, for all emotions; places are the last
        token before the reply and the mean over the message's own tokens
    statistics : for each place and family the share of pairs that change as predicted and the mean change, with 95 %
        intervals (bootstrap over pairs); p of the mean by sign flips (two-sided); and for two nulls, random directions
        that vary as stories of one emotion do (probes of them, if probes are in use) and families of random emotions,
        the share of pairs in the predicted sense that 95 % of them stay below, and the part that reach the share found
    """

    changes: pd.DataFrame
    statistics: pd.DataFrame
    model: str
    layer: int
    metric: str

    def table(self) -> pd.DataFrame:
        """The statistics, a row for each place and family."""
        return self.statistics

    def families(self) -> pd.DataFrame:
        """[pair, (place, family)] mean changes of the families."""
        return pd.DataFrame(
            {
                (place, family): self.changes[place][list(names)].mean(axis=1)
                for place in PLACES
                for family, (names, _) in FAMILIES.items()
            }
        )

    def figure(self):
        """The change in each pair, and the shares beside their nulls."""
        return _figure(self)

    def verdict(self) -> str:
        """The result in words, a sentence for each place and family."""
        said = [f"{len(self.changes)} pairs read by {self.model} at layer {self.layer} ({self.metric}s)."]
        for (place, family), row in self.statistics.iterrows():
            way = "up" if FAMILIES[family][1] > 0 else "down"
            real = row.sign_flip_p < 0.05 and row.low > 0.5
            special = real and row.random_p < 0.05
            said.append(
                f"{place.capitalize()}: danger takes {family} {way} in {row.share:.0%} of the pairs (95 % "
                f"{row.low:.0%}-{row.high:.0%}; sign flips p = {max(row.sign_flip_p, 1 / paired.DRAWS):.1g}); "
                f"{row.random_p:.1%} of random directions and {row.families_p:.1%} of random families of emotions do "
                "as much: "
                + ("a real change, and more than random directions show." if special else "")
                + ("a real change, but not more than random directions show." if real and not special else "")
                + ("the share is not shown to be above half." if not real else "")
            )
        return " ".join(said)

    def claims(self) -> tuple[Claim, ...]:
        """Fear up and calm down, at the last token and over the message (paper Fig 3 and the news article)."""
        return tuple(
            paired.share_claim(
                row,
                len(self.changes),
                claim=f"Danger {'raises fear' if FAMILIES[family][1] > 0 else 'lowers calm'} ({place})",
                part="reading",
                source=SOURCE,
                statistic=f"share of pairs with {family} {'up' if FAMILIES[family][1] > 0 else 'down'} in danger",
                paper="fear rises and calm falls with the dose of a painkiller; no pairs, no intervals",
            )
            for (place, family), row in self.statistics.iterrows()
        )


def danger_safe(subject: Subject, vectors: EmotionVectors, seed: int = 0) -> DangerSafe:
    """Read the 40 pairs in the chat template and test the families fear and calm.

    Raises EmolabError for vectors of another model, without evidence, or without the emotions of both families.
    """
    vectors.check(subject)
    paired.check_families(vectors, FAMILIES)
    pairs, layer = data.prompts("danger_safe"), vectors.chosen_layer
    gaps = np.stack(
        [read_places(subject, p["danger"], layer) - read_places(subject, p["safe"], layer) for p in pairs]
    )  # [pair, place, d_model]
    sd = vectors.neutral_sd[METRICS.index(vectors.metric), :, vectors.row()]
    scaled = vectors.directions() / sd[:, None]  # [emotion, d_model]
    rng = np.random.default_rng(seed)
    directions = paired.random_probes(vectors, rng)
    changes, rows = {}, {}
    for number, place in enumerate(PLACES):
        scores = pd.DataFrame(gaps[:, number] @ scaled.T, columns=vectors.emotions)
        nulls = paired.null_shares(gaps[:, number], scores.to_numpy(), directions, len(FAMILIES["fear"][0]), rng)
        changes |= {(place, name): scores[name].to_numpy() for name in scores}
        for family, (names, sign) in FAMILIES.items():
            found = sign * scores[list(names)].mean(axis=1).to_numpy()
            rows[place, family] = paired.statistics(found, sign, nulls, rng)
    table = pd.DataFrame(rows).T.rename_axis(["place", "family"])
    index = pd.Index([pair["id"] for pair in pairs], name="pair")
    return DangerSafe(pd.DataFrame(changes, index=index), table, subject.label, layer, vectors.metric)


def read_places(subject: Subject, message: str, layer: int) -> np.ndarray:
    """[place, d_model] the last token before the reply, and the mean over the message's own tokens."""
    text = subject.chat(message)
    hidden = read(subject, text, [layer])[0]  # [token, d_model]
    start = text.rfind(message)
    inside = [i for i, (a, b) in enumerate(subject.spans(text)) if a < start + len(message) and b > start and i]
    return np.stack([hidden[-1], hidden[inside].mean(0)])


def _figure(result: DangerSafe):
    import matplotlib.pyplot as plt

    colours = {"fear": "#d55e00", "calm": "#0072b2"}
    keys, families = list(result.statistics.index), result.families()
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 4.4), layout="constrained")
    jitter = np.random.default_rng(0).uniform(-0.18, 0.18, len(families))
    for y, key in enumerate(keys):
        row, colour = result.statistics.loc[key], colours[key[1]]
        left.scatter(families[key], y + jitter, s=16, color=colour, alpha=0.7, linewidths=0)
        error = [[row.change - row.change_low], [row.change_high - row.change]]
        left.errorbar(row.change, y + 0.3, xerr=error, fmt="o", color="black", capsize=4)
        right.barh(y, row.share, 0.5, color=colour)
        right.errorbar(row.share, y, xerr=[[row.share - row.low], [row.high - row.share]], color="black", capsize=4)
        right.plot([row.random_95] * 2, [y - 0.35, y + 0.35], "k:", label="" if y else "95 % of random directions")
        right.plot([row.families_95] * 2, [y - 0.35, y + 0.35], "k--", label="" if y else "95 % of random families")
    labels = [f"{family}, {place}" for place, family in keys]
    for axes in (left, right):
        axes.set_yticks(range(len(keys)), labels)
        axes.invert_yaxis()
    left.axvline(0, color="#999999", lw=0.8)
    left.set(xlabel="danger - safe (sd of neutral tokens)", title="Each pair; black: mean and 95 % interval")
    right.axvline(0.5, color="#999999", lw=0.8)
    right.set(xlabel="share of pairs", xlim=(0, 1.02), title="Fear up, calm down: share of pairs")
    right.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    plt.close(figure)
    return figure
