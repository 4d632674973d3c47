"""Is the readout a usable monitor? Told apart where an emotion is and where it is not, with a threshold set beforehand.

Sofroniew et al. (2026, arXiv 2604.07729) suggest to monitor extremes of emotion representations, and measure no
monitor. Here it is measured on sets whose labels say where an emotion is, beside words alone and random directions; and
on texts that name an emotion that nobody has (`data/sets/denials.jsonl`), where a monitor should not be trusted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from emolab import data
from emolab.claims import Claim
from emolab.experiments.monitor_cases import (
    DENIED,
    OTHERS,
    PASSAGES,
    by_span,
    by_token,
    denied,
    kept_sets,
    lay_out_passages,
    limits_at,
    neutral_peaks,
    of_messages,
    watched_names,
)  # fmt: skip
from emolab.experiments.monitors import DRAWS, MONITORS, VECTORS, panel
from emolab.model import Subject
from emolab.vectors import EmotionVectors
from emolab.watching.scores import gauge, lay_out, read_scores, smoothed
from emolab.watching.thresholds import Thresholds, calibrate, exact_interval, is_test

SOURCE = "Sofroniew et al. 2026, discussion (monitoring is suggested there, not measured)"
RATES = (0.01, 0.05)  # of false alarms per text, at which alarms are counted
RATE = RATES[1]  # at which the denials and the claim are judged: enough texts to tell
FALSE = "false alarms stay below twice the rate that was asked for"


@dataclass(frozen=True)
class Monitoring:
    """How well emotion vectors watch, beside words alone and random directions.

    auc : [task] AUC with 95 % interval (bootstrap over texts), of the better lexical monitor, the gain over it, and
        what 95 % of the random directions stay below
    roc : {monitor: [point, (false, true)]} by token on switching passages
    delays : [(monitor, rate)] share of passages with an alarm within the emotion (95 %, Clopper-Pearson), median tokens
        from its first token to the alarm (bootstrap over the passages with one), share with an alarm before it
    false_alarms : [rate] share of unseen neutral texts with a false alarm, mean over emotions (bootstrap over texts),
        the emotions with fewest and most, and the share with an alarm of any; `token rule`: the share if the running
        mean were judged by the threshold for single tokens
    denials : [(kind, monitor)] share of texts with an alarm: denied or merely named (95 %), sincere and plain twins
    layers : [layer] AUC by token on switching passages, with interval
    """

    auc: pd.DataFrame
    roc: dict[str, np.ndarray]
    delays: pd.DataFrame
    false_alarms: pd.DataFrame
    denials: pd.DataFrame
    layers: pd.DataFrame
    emotions: tuple[str, ...]
    test_texts: int
    model: str
    layer: int
    metric: str

    def table(self) -> pd.DataFrame:
        """The AUCs, a row for each task."""
        return self.auc

    def figure(self):
        """ROC by token, AUC of each task, alarms where the emotion is only named."""
        return _figure(self)

    def verdict(self) -> str:
        """What it can be used for and what not, in words."""
        said = [f"{self.model}, layer {self.layer} ({self.metric}s), {len(self.emotions)} emotions."]
        for task, row in self.auc.iterrows():
            better = "better than" if row["gain low"] > 0 else "worse than" if row["gain high"] < 0 else "not told from"
            said.append(
                f"{task.capitalize()}: AUC {row.auc:.2f} (95 % {row.low:.2f}-{row.high:.2f}), words alone "
                f"{row['words auc']:.2f}, random directions below {row['random 95 %']:.2f}: {better} words alone."
            )
        for rate, row in self.false_alarms.iterrows():
            said.append(
                f"Asked for false alarms in {rate:.0%} of neutral texts, found {row.rate:.1%} (95 % {row.low:.1%}-"
                f"{row.high:.1%}) in {self.test_texts} that set no threshold, mean over emotions."
            )
        own = self.delays.loc[(VECTORS, RATE)]
        said.append(
            f"At {RATE:.0%} an alarm comes in {own.found:.0%} of the passages (95 % {own.low:.0%}-{own.high:.0%}), "
            + (f"{own.delay:.0f} tokens after the emotion begins (median)." if own.delay >= 0 else "")
        )
        if self.denials.empty:
            return " ".join(said)
        kinds = self.denials.xs(VECTORS, level="monitor")
        worst = kinds["denied"].idxmax()
        said.append(
            f"Where the emotion is denied or merely named it alarms in {_mean(kinds, 'denied'):.0%} of the texts "
            f"({_mean(kinds, 'sincere'):.0%} of sincere twins, {_mean(kinds, 'plain'):.0%} without the word), most in "
            f"{worst} ({kinds.denied[worst]:.0%}): an alarm says what is represented, not that somebody feels it."
        )
        return " ".join(said)

    def claims(self) -> tuple[Claim, ...]:
        """Two rows of the card: tokens told apart better than by words, and false alarms about as often as asked."""
        row, rates = self.auc.loc[PASSAGES], self.false_alarms.loc[RATE]
        twice = 2 * RATE
        return (
            Claim(
                claim="As a monitor, emotion vectors tell where in a passage the emotion is better than words alone",
                part="use", source=SOURCE, statistic="AUC by token less that of words alone",
                value=float(row["gain auc"]), low=float(row["gain low"]), high=float(row["gain high"]),
                chance=0.0, null=float(row["random gain"]), null_name="random directions",
                n=int(row.texts), of="passages", paper="suggested, not measured",
            ),
            Claim(
                claim=f"As a monitor, {FALSE} on unseen neutral texts",
                part="use", source=SOURCE, statistic=f"{twice:g} less the share of texts with a false alarm",
                value=twice - float(rates.rate), low=twice - float(rates.high), high=twice - float(rates.low),
                chance=0.0, null=twice - float(rates["token rule"]),
                null_name="the quantile of single tokens as threshold", n=self.test_texts, of="texts",
                paper="suggested, not measured",
            ),
        )  # fmt: skip


def monitoring(
    subject: Subject,
    vectors: EmotionVectors,
    *,
    every: int = 1,
    layers: Sequence[int] | None = None,
    neutral: Sequence[str] | None = None,
    seed: int = 0,
) -> Monitoring:
    """Watch emolab's sets, at the layer and by the metric that the vectors were chosen for.

    Parameters
    ----------
    every : take one text in so many of each set but the denials, for a quick look.
    layers : set beside the chosen one; default six, evenly spaced.
    neutral : neutral texts, default emolab's own.

    Raises EmolabError for vectors of another model, without evidence, or with fewer than two emotions of the passages.
    """
    vectors.check(subject)
    vectors.need_evidence()
    sets = kept_sets(vectors.emotions, every)
    names = watched_names(sets)
    texts = list(data.neutral() if neutral is None else neutral)
    laid_neutral = [lay_out(subject, text) for text in texts]
    monitors = panel(subject, vectors, names, laid_neutral, seed)
    passages = lay_out_passages(subject, sets["switching"])
    seen = monitors.look([laid for laid, *_ in passages])
    tokens = by_token(passages, seen, names)
    cases = {PASSAGES: tokens, OTHERS: by_span(passages, seen, names)}
    cases |= of_messages(monitors, sets, names)
    peaks = neutral_peaks(subject, vectors, monitors, laid_neutral)
    unseen = np.array([is_test(text) for text in texts])
    limits = limits_at(RATES, peaks, laid_neutral)
    denials, cases[DENIED] = denied(monitors, sets["denials"], limits[RATE])
    kept = {task: found for task, found in cases.items() if found is not None}
    return Monitoring(
        auc=pd.DataFrame({task: found.row(seed) for task, found in kept.items()}).T.infer_objects().rename_axis("task"),
        roc={name: tokens.roc(number) for number, name in enumerate(MONITORS)},
        delays=_delays(passages, seen, names, limits, seed),
        false_alarms=_false_alarms(
            peaks[0][unseen], limits, calibrate(subject, vectors, names, RATE, neutral=texts), seed
        ),
        denials=denials,
        layers=_layers(subject, vectors, passages, names, layers, seed),
        emotions=names,
        test_texts=sum(map(is_test, texts)),
        model=subject.name,
        layer=vectors.chosen_layer,
        metric=vectors.metric,
    )


# --- alarms --------------------------------------------------------------------------------------------------------


def _delays(passages, seen: list[np.ndarray], names: Sequence[str], limits: dict[float, np.ndarray], seed: int):
    """Whether and when the running mean of the passage's emotion passes its threshold, by monitor and rate."""
    rng, rows = np.random.default_rng(seed), {}
    for number, name in enumerate(MONITORS):
        for rate, limit in limits.items():
            delays, early = [], 0
            for (_, emotion, span), found in zip(passages, seen, strict=True):
                column = names.index(emotion)
                above = found[number, :, column] > limit[number, column]  # [token]
                within = np.flatnonzero(above[span])
                delays.append(within[0] if len(within) else np.nan)
                early += above[: span.start].any()
            delays = np.array(delays)
            there = delays[~np.isnan(delays)]
            low, high = exact_interval(len(there), len(delays))
            row = {"found": len(there) / len(delays), "low": low, "high": high, "delay": np.nan}
            if len(there):
                drawn = np.median(rng.choice(there, (DRAWS, len(there))), axis=1)
                ends = np.quantile(drawn, [0.025, 0.975])
                row |= {"delay": np.median(there), "delay low": ends[0], "delay high": ends[1]}
            rows[name, rate] = row | {"before": early / len(delays), "passages": len(delays)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["monitor", "rate"])


def _false_alarms(peaks: np.ndarray, limits: dict[float, np.ndarray], thresholds: Thresholds, seed: int):
    """Unseen neutral texts with an alarm; peaks [text, emotion] of those that set no threshold."""
    rng, rows = np.random.default_rng(seed), {}
    draws = rng.integers(len(peaks), size=(DRAWS, len(peaks)))
    token = np.array(list(thresholds.token.values()))
    for rate, limit in limits.items():
        alarms = peaks > limit[0]  # [text, emotion]
        low, high = np.quantile(alarms.mean(1)[draws].mean(1), [0.025, 0.975])
        each = alarms.mean(0)
        rows[rate] = {"rate": each.mean(), "low": low, "high": high, "fewest": each.min(), "most": each.max()}
        rows[rate] |= {"any emotion": alarms.any(1).mean(), "token rule": (peaks > token).mean()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("asked")


def _layers(subject: Subject, vectors: EmotionVectors, passages, names, layers: Sequence[int] | None, seed: int):
    """AUC by token with the vectors of other layers, in one pass."""
    held = [layer for layer in vectors.layers if layer]
    spread = [held[i] for i in np.linspace(0, len(held) - 1, 7).astype(int)[1:]] if layers is None else layers
    chosen = sorted({*spread, vectors.chosen_layer})
    gauges = [gauge(vectors, names, layer) for layer in chosen]
    read = read_scores(subject, [laid.ids for laid, *_ in passages], *gauges)
    rows = {}
    for number, layer in enumerate(chosen):
        seen = [
            smoothed(scores[number], [turn.tokens for turn in laid.turns])[None]
            for (laid, *_), scores in zip(passages, read, strict=True)
        ]
        cases = by_token(passages, seen, names)
        low, high = np.nanquantile(cases.drawn(0, seed), [0.025, 0.975])
        rows[layer] = {"auc": cases.auc(0), "low": low, "high": high}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("layer")


def _mean(kinds: pd.DataFrame, column: str) -> float:
    """Over texts, of shares by kind."""
    return float(np.average(kinds[column], weights=kinds.texts))


def _figure(result: Monitoring):
    import matplotlib.pyplot as plt

    colours = dict(zip(MONITORS, ("#0072b2", "#e69f00", "#d55e00"), strict=True))
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(15, 4.6), layout="constrained", width_ratios=(1, 1.2, 1.2)
    )
    for name, points in result.roc.items():
        left.plot(*points.T, color=colours[name], label=name)
    left.plot([0, 1], [0, 1], color="#999999", lw=0.8, ls=":")
    left.set(xlabel="share of tokens outside above threshold", ylabel="share of tokens within the emotion",
             title=f"ROC by token, {int(result.auc.loc[PASSAGES].texts)} passages", aspect="equal")  # fmt: skip
    left.legend(frameon=False, fontsize=8, loc="lower right")
    y = np.arange(len(result.auc))
    for shift, name, key in ((-0.12, "emotion vectors", ""), (0.12, "words alone (the better)", "words ")):
        values = result.auc[f"{key}auc"]
        error = [values - result.auc[f"{key}low"], result.auc[f"{key}high"] - values]
        middle.errorbar(values, y + shift, xerr=np.abs(error), fmt="o", capsize=3, label=name,
                        color=colours[MONITORS[bool(key)]])  # fmt: skip
    middle.plot(result.auc["random 95 %"], y, "|", color="#444444", ms=14, label="95 % of random directions")
    middle.set_yticks(y, [task.replace(": ", ":\n") for task in result.auc.index], fontsize=8)
    middle.axvline(0.5, color="#999999", lw=0.8)
    middle.invert_yaxis()
    middle.set(xlabel="AUC (95 %, bootstrap over texts)", title="Told apart")
    middle.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, columnspacing=1)
    right.set_title("Where not to trust it")
    if result.denials.empty:
        plt.close(figure)
        return figure
    kinds = result.denials.xs(VECTORS, level="monitor")
    y = np.arange(len(kinds))
    versions = (("denied", "denied or merely named", "#d55e00"), ("sincere", "sincere twin", "#0072b2"),
                ("plain", "without the word", "#999999"))  # fmt: skip
    for number, (key, label, colour) in enumerate(versions):
        right.barh(y + (number - 1) * 0.27, kinds[key], 0.25, color=colour, label=label)
    error = np.abs([kinds.denied - kinds.low, kinds.high - kinds.denied])
    right.errorbar(kinds.denied, y - 0.27, xerr=error, fmt="none", color="black", capsize=3)
    right.set_yticks(y, kinds.index)
    right.invert_yaxis()
    right.set(xlabel=f"share of texts with an alarm (false alarms: {RATE:.0%})", xlim=(0, 1))
    right.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, columnspacing=1)
    plt.close(figure)
    return figure
