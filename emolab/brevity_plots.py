"""matplotlib figures on how brief an emotion is, for the results of `persistence`, `pulse` and `passage`."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from emolab.decay import AFTER, BEFORE, kaplan_meier, mean_with_band, smooth
from emolab.plots import finished

KIND_STYLES = {  # Okabe-Ito colours, with line styles that tell them apart without colour
    "emotion": ("#0072b2", "-"),
    "as if it lasted": ("#009e73", "--"),
    "as if gone at once": ("#cc79a7", ":"),
    "random, matched norm": ("#999999", "-."),
    "random, matched variance": ("#d55e00", "--"),
    "shuffled labels": ("#000000", ":"),
}


def persistence_figure(found, emotion: str | None = None) -> Figure:
    """A `persistence.Persistence`: means around the borders, share above half, half-lives, autocorrelation."""
    figure, ((onset, offset), (share, table)) = plt.subplots(2, 2, figsize=(14, 9.5), layout="constrained")
    picked = [i for i, event in enumerate(found.events) if event.into == "neutral" and emotion in (None, event.emotion)]
    tokens = np.arange(-BEFORE, AFTER)
    for axes, border in ((onset, "onset"), (offset, "offset")):
        for kind in dict.fromkeys(found.tracks.kinds):
            variants = [i for i, name in enumerate(found.tracks.kinds) if name == kind]
            windows = found.windows[border][picked][..., variants]  # [event, token, seed]
            _band(axes, tokens, np.moveaxis(windows, 2, 1).reshape(-1, len(tokens)), kind)
        axes.axvline(-0.5, color="#cccccc", lw=4, zorder=0)
        axes.axhline(0, color="#999999", lw=0.8)
        axes.set(xlabel=f"tokens from the event's {border}", ylabel="score (sd of neutral tokens)")
        axes.set_title(f"Around the {border} of {emotion or 'the emotion'}: mean of {len(picked)} events")
    offset.sharey(onset)
    onset.legend(frameon=False, fontsize=9)

    for kind in KIND_STYLES:
        _survival(share, found.rows(kind, emotion), kind)
    share.axhline(0.5, color="#cccccc", zorder=0)
    share.set(xlabel="tokens after the event", ylabel="share of events", ylim=(0, 1.02), xlim=(0, AFTER))
    share.set_title("Not yet fallen to half for good (Kaplan-Meier)")
    share.legend(frameon=False, fontsize=9)
    _half_lives(table, found.table(), list(found.tracks.emotions))
    return finished(figure)


def correlation_figure(found) -> Figure:
    """A `persistence.Persistence`: how alike scores are that are so many tokens apart."""
    figure, panels = plt.subplots(1, 2, figsize=(14, 4.6), layout="constrained", sharey=True)
    titles = {"text": "Whole passages, each centred", "segment": "Within segments, each centred: the switch taken out"}
    for axes, (name, title) in zip(panels, titles.items(), strict=True):
        for kind in found.correlation[name]:
            colour, style = KIND_STYLES[kind]
            axes.plot(found.correlation[name][kind].iloc[1:], style, color=colour, label=kind)
        axes.axhline(0, color="#999999", lw=0.8)
        axes.set(xlabel="tokens apart", ylabel="autocorrelation", title=title)
    panels[0].legend(frameon=False)
    return finished(figure)


def passage_figure(passage) -> Figure:
    """A `passage.Passage`: the score token by token, the event, half of its level, and where it has fallen to that."""
    event, level, fallen = passage.event, passage.level[0], passage.fallen
    tokens, first = np.arange(1, event.stop), max(event.start, 1)
    smoothed = np.stack([smooth(track) for track in passage.scores[1 : event.stop].T])  # [variant, token]
    null = smoothed[[kind == "random, matched variance" for kind in passage.tracks.kinds]]
    colour, grey = KIND_STYLES["emotion"][0], "#999999"
    figure, axes = plt.subplots(figsize=(13, 4.2), layout="constrained")
    axes.axvspan(first - 0.5, event.end - 0.5, color="#eeeeee", label="the event")
    axes.fill_between(tokens, null.min(0), null.max(0), color=KIND_STYLES["random, matched variance"][0], alpha=0.2,
                      lw=0, label=f"range of {len(null)} directions that mean nothing")  # fmt: skip
    axes.plot(tokens, passage.scores[1 : event.stop, 0], color=colour, lw=0.7, alpha=0.5)
    axes.plot(tokens, smoothed[0], color=colour, lw=2, label=f"{event.emotion} (thick: smoothed over five tokens)")
    axes.hlines(level, first - 0.5, event.end - 0.5, color="#009e73", ls="--", label=f"mean of the event: {level:.2f}")
    if level > 0:
        axes.hlines(level / 2, event.end - 0.5, event.stop, color="black", ls=":", label=f"half of it: {level / 2:.2f}")
    if fallen is not None:
        count = fallen - event.end + 1
        axes.plot(fallen, level / 2, "v", color="black", ms=9, label=f"half-life: {count} token{'s' * (count != 1)}")
    axes.axhline(0, color=grey, lw=0.8)
    axes.set(xlabel="token", ylabel="score (sd of neutral tokens)", title=f"{event.emotion} in one passage")
    figure.legend(frameon=False, loc="outside lower center", ncols=3)
    return finished(figure)


def carry_over_figure(found, emotion: str | None = None) -> Figure:
    """A `persistence.CarryOver`: the paired difference along the same neutral text, and what share is left."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(14, 4.8), layout="constrained")
    tokens = np.arange(1, found.afters.shape[1] + 1)
    rows = found.rows(emotion=emotion)
    _band(left, tokens, found.afters[rows.index], "emotion")
    left.axhline(rows.level.mean(), color="#0072b2", ls=":", label="difference of the openings")
    left.axhline(0, color="#999999", lw=0.8)
    left.set(xlabel="tokens into the same neutral text", ylabel="emotional - neutral opening (sd of neutral tokens)")
    left.set_title(f"What the opening leaves of {emotion or 'the emotion'}: mean of {len(rows)} pairs, 95 % band")
    left.legend(frameon=False)
    table, marks = found.kinds(emotion), (5, 10, 20, 40)
    for shift, kind in enumerate(name for name in KIND_STYLES if name in table.index):
        row, colour = table.loc[kind], KIND_STYLES[kind][0]
        share = np.array([[row[f"left_{mark}{end}"] for mark in marks] for end in ("", "_low", "_high")])
        error = [share[0] - share[1], share[2] - share[0]]
        places = np.arange(4) + 0.15 * (shift - 1.5)
        right.errorbar(places, share[0], error, fmt="osD^"[shift], color=colour, capsize=3, label=kind)
    right.axhline(0, color="#999999", lw=0.8)
    right.set_xticks(range(4), marks)
    right.set(xlabel="tokens into the same neutral text", ylabel="share of the difference that is left")
    right.set_title("Beside directions that mean nothing, 95 % intervals")
    right.legend(frameon=False)
    return finished(figure)


def pulse_figure(found, emotion: str | None = None) -> Figure:
    """A `pulse.Pulse`: change of the score after a push, by reading layer, and beside random pushes."""
    effects = found.of(emotion)
    figure, (left, right) = plt.subplots(1, 2, figsize=(14, 4.8), layout="constrained", sharey=True)
    tokens = np.arange(1, found.afters.shape[1] + 1)
    layers = list(dict.fromkeys(effects.layer))
    for i, layer in enumerate(layers):
        rows = effects[(effects.layer == layer) & (effects.kind == "emotion")]
        colour = plt.get_cmap("viridis")(0.9 * i / max(len(layers) - 1, 1))
        left.plot(
            tokens, found.afters[rows.index].mean(0), color=colour, label=f"{layer} (push: {rows.level.mean():.1f})"
        )
    left.legend(frameon=False, title="read at layer (sd during the push)")
    left.set_title(f"After a push of five tokens towards {emotion or 'the emotion'} at layer {found.layer}")
    for kind in dict.fromkeys(effects.kind):
        rows = effects[(effects.layer == layers[-1]) & (effects.kind == kind)]
        _band(right, tokens, found.afters[rows.index], kind)
    right.legend(frameon=False)
    right.set_title(f"Read at layer {layers[-1]}, beside random pushes of the same length")
    for axes in (left, right):
        axes.axhline(0, color="#999999", lw=0.8)
        axes.set(xlabel="tokens after the push", ylabel="change of the score (sd of neutral tokens)")
    return finished(figure)


def _band(axes, tokens: np.ndarray, windows: np.ndarray, kind: str) -> None:
    """Mean over [event, token] windows with its 95 % band."""
    colour, style = KIND_STYLES[kind]
    known = ~np.isnan(windows).all(0)
    mean, low, high, _ = mean_with_band(windows[:, known])
    axes.plot(tokens[known], mean, style, color=colour, label=kind, lw=2 if kind == "emotion" else 1.2)
    axes.fill_between(tokens[known], low, high, color=colour, alpha=0.2, lw=0)


def _survival(axes, rows: pd.DataFrame, kind: str) -> None:
    """Kaplan-Meier curve of the events that rose, if any."""
    rose = rows[rows.rose]
    if len(rose):
        alive = kaplan_meier(rose.tokens.to_numpy(), rose.reached.to_numpy(bool))
        colour, style = KIND_STYLES[kind]
        label = f"{kind} ({rows.rose.mean():.0%} of {len(rows)} rose)"
        axes.step(range(len(alive) + 1), [1, *alive], style, where="post", color=colour, label=label)


def _half_lives(axes, table: pd.DataFrame, emotions: list[str]) -> None:
    """Half-life of each emotion with its interval; an arrow where it is not reached."""
    order = table.loc[emotions].sort_values(["half_life", "high"], ascending=False).index
    names = [*[name for name in ("as if it lasted", "as if gone at once") if name in table.index], "all", *order][::-1]
    for y, name in enumerate(names):
        row = table.loc[name]
        colour = KIND_STYLES.get(name, KIND_STYLES["emotion"])[0]
        low, value, high = (min(x, AFTER) for x in (row.low, row.half_life, row.high))
        axes.plot([low, high], [y, y], color=colour, lw=2)
        axes.plot(value, y, "D" if name == "all" else ">" if np.isinf(row.half_life) else "o", color=colour)
        if np.isinf(row.high):
            axes.plot(high, y, ">", color=colour, ms=5, clip_on=False)
        if "null" in row and np.isfinite(row.null):
            axes.plot(row.null, y, "|", color=KIND_STYLES["random, matched variance"][0], ms=12, mew=2)
    axes.plot(
        [], [], "|", color=KIND_STYLES["random, matched variance"][0], ms=12, mew=2, ls="", label="matched variance"
    )
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="half-life (tokens), 95 % interval; arrow: not reached", xlim=(0, AFTER))
    axes.set_title("By emotion, five events each")
    axes.legend(frameon=False, loc="lower right")
