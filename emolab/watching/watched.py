"""`Watched`: what a monitor saw in a text, and the alarms in it. `Track` makes it, token by token.

An alarm of an emotion begins where its running mean passes the threshold and ends where it has fallen to half of it,
so that one rise is one alarm; with the turn it ends in any case.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from emolab.watching.scores import Turn
from emolab.watching.thresholds import Thresholds

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#808080")


@dataclass(frozen=True)
class Alarm:
    """A stretch in which one emotion's running mean is high.

    emotion, speaker : what was read, and on whose tokens
    start, end : tokens start..end - 1; at `start` the threshold was passed, by what the last tokens up to it say
    peak, at : the highest running mean [sd], and its token
    threshold : what was passed
    """

    emotion: str
    speaker: str
    start: int
    end: int
    peak: float
    at: int
    threshold: float

    def __str__(self) -> str:
        return (
            f"{self.emotion} at token {self.start} ({self.speaker}): {self.peak:+.2f} sd, threshold "
            f"{self.threshold:+.2f}"
        )


@dataclass(frozen=True)
class Watched:
    """A text as a monitor saw it.

    tokens : [token] pieces of the text
    speakers : [token] whose they are, '' for those that are not scored
    scores, means : [token, emotion] scores of single tokens and their running mean, in sd of neutral tokens; NaN
        where nothing is scored
    alarms : in the order in which they were raised
    thresholds : by which
    """

    tokens: tuple[str, ...]
    speakers: tuple[str, ...]
    scores: np.ndarray
    means: np.ndarray
    alarms: tuple[Alarm, ...]
    thresholds: Thresholds

    def __repr__(self) -> str:
        return f"Watched({len(self.tokens)} tokens, {len(self.alarms)} alarms of {', '.join(self.emotions)})"

    @property
    def emotions(self) -> tuple[str, ...]:
        """What was watched, the names along the last axis."""
        return self.thresholds.emotions

    def table(self) -> pd.DataFrame:
        """A row for each alarm: emotion, speaker, tokens, peak and threshold [sd], and its words."""
        names = ["emotion", "speaker", "start", "end", "tokens", "peak", "threshold", "text"]
        rows = [
            (a.emotion, a.speaker, a.start, a.end, a.end - a.start, a.peak, a.threshold, self.words(a))
            for a in self.alarms
        ]
        return pd.DataFrame(rows, columns=names).rename_axis("alarm")

    def words(self, alarm: Alarm) -> str:
        """The text of an alarm, with the tokens whose running mean raised it."""
        start = alarm.start
        while start > max(alarm.start - self.thresholds.window + 1, 0) and self.speakers[start - 1] == alarm.speaker:
            start -= 1
        return "".join(self.tokens[start : alarm.end]).strip()

    def by_token(self) -> pd.DataFrame:
        """[token] (emotion, score | mean | stands out | alarm): all that was seen."""
        table = {}
        for column, name in enumerate(self.emotions):
            inside = np.zeros(len(self.tokens), bool)
            for alarm in self.alarms:
                inside[alarm.start : alarm.end] |= alarm.emotion == name
            table[name, "score"], table[name, "mean"] = self.scores[:, column], self.means[:, column]
            table[name, "stands out"] = self.scores[:, column] > self.thresholds.token[name]
            table[name, "alarm"] = inside
        index = pd.MultiIndex.from_arrays(
            [range(len(self.tokens)), self.tokens, self.speakers], names=["position", "token", "speaker"]
        )
        return pd.DataFrame(table, index=index)

    def peaks(self) -> pd.Series:
        """[emotion] the highest running mean [sd], NaN if nothing was scored."""
        seen = self.means[~np.isnan(self.means).all(1)]
        return pd.Series(seen.max(0) if len(seen) else np.nan, index=list(self.emotions), name="peak")

    def verdict(self) -> str:
        """What was seen, in words."""
        t = self.thresholds
        scored = int((~np.isnan(self.means[:, 0])).sum())
        said = (
            f"{len(self.alarms)} alarm{'s' * (len(self.alarms) != 1)} of {', '.join(self.emotions)} in {scored} scored "
            f"tokens (layer {t.layer} of {t.model}). "
        )
        said += "".join(f"{alarm}. " for alarm in self.alarms[:6])
        return (
            f"{said}A neutral {'chat' if t.kind == 'chat' else 'text'} of {t.typical} tokens raises an alarm of one "
            f"emotion by mistake with a chance of at most {t.false_alarm:g}, one of {scored} with about "
            f"{t.expected(scored):.2g}."
        )

    def figure(self):
        """The running means over the tokens, with thresholds, and alarms shaded."""
        return _figure(self)

    def _repr_html_(self) -> str:
        from emolab.widgets.watch_view import watched_html

        return watched_html(self)


class Track:
    """What a monitor has seen so far: tokens are fed one by one, each as soon as it is there."""

    def __init__(self, thresholds: Thresholds):
        self.thresholds = thresholds
        self.alarms: list[Alarm] = []
        self.tokens: list[str] = []
        self.speakers: list[str] = []
        self._scores: list[np.ndarray] = []  # [emotion] each
        self._means: list[np.ndarray] = []
        self._limits = np.array(list(thresholds.alarm.values()))  # [emotion]
        self._nothing = np.full(len(self._limits), np.nan)
        self._recent = np.zeros((thresholds.window, len(self._limits)))  # the last tokens of the turn, in a ring
        self._count = 0  # tokens that were scored
        self._open: dict[int, int] = {}  # emotion: place among the alarms

    def turn(self) -> None:
        """A new turn begins: all stands at the neutral mean, and open alarms end."""
        self._recent[:] = 0
        self._open.clear()

    def feed(self, token: str, scores: np.ndarray | None, speaker: str) -> list[Alarm]:
        """One more token, with its [emotion] scores (None if it is not scored); returns the alarms that it raises."""
        place = len(self.tokens)
        self.tokens.append(token)
        self.speakers.append(speaker if scores is not None else "")
        if scores is None:
            self._scores.append(self._nothing)
            self._means.append(self._nothing)
            return []
        self._recent[self._count % len(self._recent)] = scores
        self._count += 1
        mean = self._recent.sum(0) / len(self._recent)
        self._scores.append(scores)
        self._means.append(mean)
        for column in list(self._open):
            self._go_on(column, place, mean[column])
        return [self._raise(column, place, mean[column], speaker) for column in np.flatnonzero(mean > self._limits)
                if column not in self._open]  # fmt: skip

    def _go_on(self, column: int, place: int, value: float) -> None:
        alarm = self.alarms[self._open[column]]
        if value <= alarm.threshold - abs(alarm.threshold) / 2:
            del self._open[column]
            return
        higher = {"peak": float(value), "at": place} if value > alarm.peak else {}
        self.alarms[self._open[column]] = replace(alarm, end=place + 1, **higher)

    def _raise(self, column: int, place: int, value: float, speaker: str) -> Alarm:
        name = self.thresholds.emotions[column]
        limit = float(self._limits[column])
        alarm = Alarm(name, speaker, place, place + 1, float(value), place, limit)
        self._open[int(column)] = len(self.alarms)
        self.alarms.append(alarm)
        return alarm

    def row(self, place: int = -1) -> dict:
        """A token as it is logged: token, scores, thresholds, and the alarms that it is in, as [start, end so far]."""
        place %= len(self.tokens)
        spans = {
            self.alarms[i].emotion: [self.alarms[i].start, self.alarms[i].end]
            for i in self._open.values()
            if self.alarms[i].end == place + 1
        }
        names = self.thresholds.emotions
        plain = [dict(zip(names, map(_number, x[place]), strict=True)) for x in (self._scores, self._means)]
        return {
            "position": place, "token": self.tokens[place], "speaker": self.speakers[place], "score": plain[0],
            "mean": plain[1], "threshold": self.thresholds.alarm, "span": {name: spans.get(name) for name in names},
        }  # fmt: skip

    def watched(self) -> Watched:
        """All so far, as a result."""
        shape = (-1, len(self._limits))
        arrays = [np.array(rows, dtype=np.float64).reshape(shape) for rows in (self._scores, self._means)]
        return Watched(tuple(self.tokens), tuple(self.speakers), *arrays, tuple(self.alarms), self.thresholds)


def walk(turns: tuple[Turn, ...], length: int) -> Iterator[tuple[str, bool]]:
    """(speaker, whether a turn begins) for each token; the speaker is '' outside of turns."""
    found = [("", False)] * length
    for turn in turns:
        for place in range(turn.tokens.start, min(turn.tokens.stop, length)):
            found[place] = (turn.role, place == turn.tokens.start)
    yield from found


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


def _figure(watched: Watched):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(11, 3.6), layout="constrained")
    places = np.arange(len(watched.tokens))
    for number, name in enumerate(watched.emotions):
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(places, watched.means[:, number], color=colour, lw=1.8, label=name)
        axes.axhline(watched.thresholds.alarm[name], color=colour, ls="--", lw=1, label=f"threshold of {name}")
        for alarm in watched.alarms:
            if alarm.emotion == name:
                axes.axvspan(alarm.start - 0.5, alarm.end - 0.5, color=colour, alpha=0.15, lw=0)
    for place in range(1, len(places)):
        if watched.speakers[place] and watched.speakers[place] not in ("text", watched.speakers[place - 1]):
            axes.axvline(place - 0.5, color="#999999", lw=0.8)
            axes.annotate(watched.speakers[place], (place, 1), xycoords=("data", "axes fraction"), fontsize=8,
                          va="top", xytext=(2, -2), textcoords="offset points", color="#666666")  # fmt: skip
    axes.axhline(0, color="#cccccc", lw=0.8, zorder=0)
    t = watched.thresholds
    axes.set(
        xlabel="token", ylabel=f"mean score of the last {t.window} tokens\n(sd of neutral tokens)",
        title=f"{len(watched.alarms)} alarm{'s' * (len(watched.alarms) != 1)} (shaded), at most {t.false_alarm:g} by "
        f"mistake in a neutral text of {t.typical} tokens",
    )  # fmt: skip
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    plt.close(figure)
    return figure
