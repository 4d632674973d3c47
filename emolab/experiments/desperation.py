"""Desperation: is it read in desperate dilemmas, and does a push towards it make harm likelier than honesty?

The claims are those of Sofroniew et al. (2026, arXiv 2604.07729, part 3, Figs 26-31), made of what a large model does.
A small model does nothing of the kind in free text, so what is measured here is what it expects: the log-odds of a
harmful against an honest reply of the same length, in 64 short dilemmas, each in a desperate and a calm version.

Fixed before any result was seen: read at the vectors' own layer and metric; push at the middle layer, on the story's
tokens only, so that the push can't favour a word of the replies; judge by the slope at strength 0, which
`continuation_gradients` gives for every direction at once, and by the difference desperate - calm, in which what any
push does cancels; hold it against the highest of three nulls (`dilemmas.NULLS`). Real pushes of the paper's strength
stand beside it, to see whether the slope says what they do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from emolab import data
from emolab.claims import Claim
from emolab.directions import unit
from emolab.experiments import paired
from emolab.experiments.dilemmas import (
    EMOTIONS,
    FAMILIES,
    NULLS,
    POINTS,
    STRENGTH,
    VERSIONS,
    check_dilemmas,
    log_odds,
    null_slopes,
    odds_gradients,
    real_pushes,
    sample_replies,
    story_reading,
)
from emolab.model import Subject
from emolab.steering import steered_layers
from emolab.vectors import EmotionVectors

CONTRAST = "desperate - calm"
DRAWS = 10_000  # of the bootstrap over dilemmas
LEAST = 5  # dilemmas of a kind that is shown by itself
COLOURS = {"desperate": "#d55e00", "calm": "#0072b2"}  # Okabe-Ito
NULL_COLOURS = ("#555555", "#009e73", "#cc79a7")
FREE_TEXT = 1e9  # parameters below which free replies are not taken for choices
PAPER = (
    "blackmail 22 % unsteered, 72 % at +0.05 desperate, 0 % at +0.05 calm, 66 % at -0.05; reward hacking about 5 to "
    "70 % from -0.1 to +0.1 desperate, 65 to 10 % of calm"
)


@dataclass(frozen=True)
class Desperation:
    """What is read along the dilemmas, which reply is expected, and how that answers to a push.

    tracks : [version, dilemma, point, emotion] scores of desperate and calm along the story, in sd of neutral tokens
    reading : for both emotions the share of dilemmas that change as predicted from the calm to the desperate version
        and the mean change, with intervals and nulls, as `paired.statistics` gives them
    odds : [dilemma, version] log-odds of the harmful against the honest reply, in nats, without a push
    slopes : [dilemma, emotion] change of these log-odds in the desperate version for a push of strength 1, as it is at
        strength 0, for every emotion of the vectors
    nulls : for each null [draw, dilemma] slopes of directions of length 1, or of random pairs of emotions
    pushed : a row for each dilemma, emotion and strength that was really steered: `change` of the log-odds, and what
        the slope `expected`
    kinds : [dilemma] which sort of harm
    rollouts : sampled replies, empty unless asked for (see `sample_replies`)
    """

    tracks: np.ndarray
    reading: pd.DataFrame
    odds: pd.DataFrame
    slopes: pd.DataFrame
    nulls: dict[str, np.ndarray]
    pushed: pd.DataFrame
    kinds: np.ndarray
    rollouts: pd.DataFrame
    contrast_length: float
    model: str
    parameters: int
    read_layer: int
    layer: int
    seed: int

    def table(self) -> pd.DataFrame:
        """Mean effects on the log-odds (nats), over all dilemmas and by kind (of five or more).

        All are turned so that more is what is claimed. Rows (effect, kind). 'situation': desperate - calm version, no
        push; 'desperate', 'less calm': slope per unit of strength along an emotion, turned for calm; 'desperate -
        calm': the difference of the two slopes. `value` with its 95 % interval (bootstrap over dilemmas), and what
        95 % of each null stay below.
        """
        rows = {}
        for name, values in self._effects().items():
            for kind in ("all", *dict.fromkeys(self.kinds)):
                chosen = np.flatnonzero(self.kinds == kind) if kind != "all" else np.arange(len(self.kinds))
                if kind != "all" and len(chosen) < LEAST:
                    continue  # an interval over so few would say nothing
                rows[name, kind] = self._interval(values[chosen]) | {"dilemmas": len(chosen)}
                rows[name, kind] |= self._null(name, chosen)
        return pd.DataFrame(rows).T.rename_axis(["effect", "kind"])

    def real_pushes(self) -> pd.DataFrame:
        """(emotion, strength): mean change of the log-odds under a real push, 95 % interval, and what was expected."""
        groups = self.pushed.groupby(["push", "strength"], sort=False)
        rows = {
            key: self._interval(rows.change.to_numpy()) | {"expected": rows.expected.mean()} for key, rows in groups
        }
        return pd.DataFrame(rows).T.rename_axis(["push", "strength"])

    def agreement(self) -> float:
        """Correlation of real changes with those that the slopes make expect, over single dilemmas and pushes."""
        return float(np.corrcoef(self.pushed.change, self.pushed.expected)[0, 1])

    def figure(self):
        """Readout along the stories, the contrast by kind and beside its nulls, and real pushes."""
        return _figure(self)

    def verdict(self) -> str:
        """The result in words: what is read, what is expected, and what a push does to it."""
        said = [f"{len(self.kinds)} dilemmas in {self.model}, read at layer {self.read_layer}."]
        for name, row in self.reading.iterrows():
            way = "higher" if FAMILIES[name][1] > 0 else "lower"
            said.append(
                f"{name.capitalize()} reads {way} in the desperate version in "
                f"{row['share']:.0%} of them (95 % {row.low:.0%}-{row.high:.0%}; 95 % of random directions stay below "
                f"{row.random_95:.0%}, of single emotions below {row.families_95:.0%}), by {row.change:+.2f} sd "
                f"({row.change_low:+.2f} to {row.change_high:+.2f})."
            )
        table = self.table().xs("all", level="kind")
        row = table.loc["situation"]
        said.append(
            f"The desperate version itself moves the log-odds of harm by {row.value:+.2f} nats ({row.low:+.2f} to "
            f"{row.high:+.2f})."
        )
        row, null = table.loc[CONTRAST], table.loc[CONTRAST, list(NULLS)]
        said.append(
            f"Pushing the story at layer {self.layer} from calm towards desperate moves them by "
            f"{row.value * STRENGTH:+.2f} nats for each {STRENGTH:g} of strength ({row.low * STRENGTH:+.2f} to "
            f"{row.high * STRENGTH:+.2f}); 95 % of {null.idxmax()} stay below {null.max() * STRENGTH:+.2f}: "
            f"{self.claims()[2].verdict}. Real pushes agree with that slope at r = {self.agreement():.2f}."
        )
        kinds = self.table().loc[CONTRAST].drop("all") * STRENGTH
        each = [
            f"{kind} {row.value:+.2f} ({row.low:+.2f} to {row.high:+.2f}; null {row[list(NULLS)].max():+.2f})"
            for kind, row in kinds.iterrows()
        ]
        said += [f"By kind (few dilemmas each): {'; '.join(each)}."] if each else []
        said.append("These are log-odds of given replies, not behaviour.")
        return " ".join(said)

    def claims(self) -> tuple[Claim, ...]:
        """Reading (Figs 26, 27), the effect of a push on log-odds (Figs 28, 31), and rates, not testable here."""
        reads = tuple(
            paired.share_claim(
                row,
                len(self.kinds),
                claim=f"{name.capitalize()} reads {way} in a desperate situation",
                part="reading",
                source="Sofroniew et al. 2026, part 3, Figs 26, 27, 30",
                statistic=f"share of dilemmas with {name} {way} in the desperate version",
                paper="desperate rises towards the harmful choice and calm falls; no pairs, no intervals",
            )
            for (name, row), way in zip(self.reading.iterrows(), ("higher", "lower"), strict=True)
        )
        row = self.table().loc[(CONTRAST, "all")]
        shared = {"part": "function", "source": "Sofroniew et al. 2026, part 3, Figs 28, 31", "paper": PAPER}
        effect = Claim(
            claim="A push towards desperation favours the harmful choice, one towards calm the honest",
            statistic=f"log-odds (not behaviour) harmful - honest, slope {CONTRAST}, nats per {STRENGTH:g} of strength",
            null_name=f"the highest of {', '.join(NULLS)}",
            n=len(self.kinds),
            of="dilemmas",
            **{name: float(row[name]) * STRENGTH for name in ("value", "low", "high")},
            null=float(row[list(NULLS)].max()) * STRENGTH,
            **shared,
        )
        rates = Claim(
            claim="Steering with desperation or calm changes how often a model blackmails or cheats",
            statistic="rate of harmful replies",
            reason=self._no_rates(),
            **shared,
        )
        return (*reads, effect, rates)

    def _no_rates(self) -> str:
        if self.parameters < FREE_TEXT:
            return (
                f"{self.model} has {self.parameters / 1e6:.0f} M parameters; below {FREE_TEXT / 1e6:.0f} M a free "
                "reply is not taken for a choice (a rule, not a result); the log-odds are what can be measured"
            )
        return "rates need replies that someone has judged: `rollouts` returns them unjudged"

    def _effects(self) -> dict[str, np.ndarray]:
        """{effect: [dilemma]}, all turned."""
        desperate, calm = (self.slopes[name].to_numpy() for name in EMOTIONS)
        situation = (self.odds["desperate"] - self.odds["calm"]).to_numpy()
        return {"situation": situation, "desperate": desperate, "less calm": -calm, CONTRAST: desperate - calm}

    def _interval(self, values: np.ndarray) -> dict[str, float]:
        rng = np.random.default_rng(self.seed)
        drawn = values[rng.integers(len(values), size=(DRAWS, len(values)))].mean(1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        return {"value": values.mean(), "low": low, "high": high}

    def _null(self, effect: str, chosen: np.ndarray) -> dict[str, float]:
        """What 95 % of each null stay below; a null direction has no right way round, so both count."""
        if effect == "situation":
            return dict.fromkeys(NULLS, np.nan)
        found = {name: values[:, chosen].mean(1) for name, values in self.nulls.items()}
        if effect == CONTRAST:  # as far apart as desperate and calm are
            found |= {name: found[name] * self.contrast_length for name in NULLS[:2]}
        else:
            every = self.slopes.to_numpy()[chosen].mean(0)  # single emotions, not pairs
            found[NULLS[2]] = every
        return {
            name: np.quantile(np.concatenate([values, -values]), 0.95) if len(values) else np.nan
            for name, values in found.items()
        }


def desperation(
    subject: Subject,
    vectors: EmotionVectors,
    *,
    dilemmas: Sequence[dict] | None = None,
    layer: int | None = None,
    steered: int = 32,
    rollouts: int = 0,
    seed: int = 0,
) -> Desperation:
    """Read the dilemmas, compare their two replies, and push towards desperate and calm (paper part 3).

    Parameters
    ----------
    dilemmas : default `data.prompts("dilemmas")`; your own need the same fields.
    layer : where to push; default the middle one.
    steered : how many of the dilemmas, evenly spread, are really steered, at +-0.1, at least two.
    rollouts : replies to sample for each dilemma and push, for larger models; see `sample_replies`.

    Raises
    ------
    EmolabError : vectors of another model, without evidence, or without desperate and calm; fewer than two dilemmas
        or one that lacks a field; a text beyond the context window.
    """
    vectors.check(subject)
    paired.check_families(vectors, FAMILIES)
    (layer,) = steered_layers(subject, vectors, layer)
    dilemmas = check_dilemmas(data.prompts("dilemmas") if dilemmas is None else dilemmas)
    index = pd.Index([dilemma["id"] for dilemma in dilemmas], name="id")
    tracks, reading = story_reading(subject, vectors, dilemmas, seed)
    desperate, gradients = odds_gradients(subject, dilemmas, "desperate", layer)
    odds = {"desperate": desperate, "calm": log_odds(subject, dilemmas, "calm")}
    row = vectors.row(layer)
    units = unit(vectors.vectors[:, row].astype(np.float64))  # [emotion, d_model]
    gradients = gradients * vectors.residual_norm[row]  # for a push of strength 1
    slopes = pd.DataFrame(gradients @ units.T, index=index, columns=vectors.emotions)
    apart = np.subtract(*units[[vectors.index(name) for name in EMOTIONS]])
    some = np.linspace(0, len(dilemmas) - 1, min(max(steered, 2), len(dilemmas))).round().astype(int)
    return Desperation(
        tracks=tracks,
        reading=reading,
        odds=pd.DataFrame(odds, index=index),
        slopes=slopes,
        nulls=null_slopes(subject, vectors, gradients, slopes, layer, seed),
        pushed=real_pushes(subject, vectors, [dilemmas[i] for i in some], slopes, layer),
        kinds=np.array([dilemma["kind"] for dilemma in dilemmas]),
        rollouts=sample_replies(subject, vectors, dilemmas, rollouts, layer=layer, seed=seed),
        contrast_length=float(np.linalg.norm(apart)),
        model=subject.label,
        parameters=sum(weights.numel() for weights in subject.model.parameters()),
        read_layer=vectors.chosen_layer,
        layer=layer,
        seed=seed,
    )


def _figure(result: Desperation):
    import matplotlib.pyplot as plt

    figure, ((along, kinds), (nulls, pushes)) = plt.subplots(2, 2, figsize=(14, 9.5), layout="constrained")
    _draw_tracks(along, result)
    _draw_kinds(kinds, result)
    _draw_nulls(nulls, result)
    _draw_pushes(pushes, result)
    plt.close(figure)
    return figure


def _draw_tracks(axes, result: Desperation) -> None:
    share = (np.arange(POINTS) + 0.5) / POINTS
    for e, name in enumerate(EMOTIONS):
        for v, version in enumerate(VERSIONS):
            scores = result.tracks[v, :, :, e]  # [dilemma, point]
            mean, error = scores.mean(0), 1.96 * scores.std(0, ddof=1) / np.sqrt(len(scores))
            style = {"color": COLOURS[name], "ls": ("-", "--")[v]}
            axes.plot(share, mean, lw=2, label=f"{name}, {version} version", **style)
            axes.fill_between(share, mean - error, mean + error, color=COLOURS[name], alpha=0.15, lw=0)
    axes.axhline(0, color="#999999", lw=0.8)
    axes.set(xlabel="share of the story", ylabel="score (sd of neutral tokens)", xlim=(0, 1))
    axes.set_title(f"What is read along {len(result.kinds)} stories: means, 95 % bands")
    axes.legend(frameon=False)


def _draw_kinds(axes, result: Desperation) -> None:
    rows = result.table().loc[CONTRAST]
    for y, (_, row) in enumerate(rows.iterrows()):
        value, low, high, null = STRENGTH * np.array([row.value, row.low, row.high, row[list(NULLS)].max()])
        axes.plot([low, high], [y, y], color="black", lw=2)
        axes.plot(value, y, "o", color="black", ms=8, label="" if y else "slope, 95 % interval")
        axes.plot([null] * 2, [y - 0.3, y + 0.3], "--", color="#cc79a7", label="" if y else "95 % of nulls stay below")
    axes.axvline(0, color="#999999", lw=0.8)
    axes.set_yticks(range(len(rows)), [f"{kind} ({row.dilemmas:.0f})" for kind, row in rows.iterrows()])
    axes.set(xlabel=f"change of the log-odds of harm, {CONTRAST} (nats for {STRENGTH:g} of strength)")
    axes.set_title("Does a push from calm to desperate favour harm?")
    axes.set_ylim(len(rows) - 0.4, -1)  # room for the legend above the first row
    axes.legend(frameon=False, loc="upper left", ncols=2)


def _draw_nulls(axes, result: Desperation) -> None:
    row = result.table().loc[(CONTRAST, "all")]
    for (name, slopes), colour, style in zip(result.nulls.items(), NULL_COLOURS, ("-", "--", ":"), strict=True):
        found = slopes.mean(1) * STRENGTH * (1 if name == NULLS[2] else result.contrast_length)
        found = np.concatenate([found, -found])  # neither way round is the right one
        axes.hist(found, 31, histtype="step", density=True, color=colour, ls=style, lw=1.6, label=name)
    value, low, high = STRENGTH * np.array([row.value, row.low, row.high])
    axes.axvspan(low, high, color="black", alpha=0.12, lw=0)
    axes.axvline(value, color="black", lw=2, label=f"{CONTRAST}, 95 % interval")
    axes.set(xlabel=f"change of the log-odds of harm (nats for {STRENGTH:g} of strength)", ylabel="density")
    axes.set_title("The same slope for pushes that mean nothing, or something else")
    axes.set_ylim(0, axes.get_ylim()[1] * 1.45)  # room for the legend
    axes.legend(frameon=False, loc="upper left")


def _draw_pushes(axes, result: Desperation) -> None:
    for name, marker in zip(EMOTIONS, "os", strict=True):
        rows = result.pushed[result.pushed.push == name]
        axes.plot(rows.expected, rows.change, marker, color=COLOURS[name], ms=5, alpha=0.7, label=name)
    ends = np.array([result.pushed.expected.min(), result.pushed.expected.max()])
    axes.plot(ends, ends, color="#999999", lw=1, label="as the slope says")
    axes.set(xlabel="expected from the slope (nats)", ylabel="under a real push (nats)")
    axes.set_title(f"Pushes of ±{STRENGTH:g} in single dilemmas: r = {result.agreement():.2f}")
    axes.legend(frameon=False)
