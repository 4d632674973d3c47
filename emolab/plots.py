"""matplotlib figures. Each takes a result object and gives back a figure; nothing is computed here.

Colours: red-blue diverging (ColorBrewer RdBu, safe for colour-blind eyes) where zero has a meaning.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import textalloc
from matplotlib.figure import Figure

from emolab.decay import AFTER, BEFORE, kaplan_meier, mean_with_band, smooth
from emolab.geometry import Geometry
from emolab.quality import TEXTS, WORDS, Quality

DIVERGING = "RdBu"
METRIC_COLOURS = {"vector": "#e69f00", "probe": "#0072b2", WORDS: "#777777"}  # Okabe-Ito


def emotion_map(geometry: Geometry) -> Figure:
    """All directions by UMAP, every one labelled, coloured by the pleasure that the directions predict."""
    points = geometry.points
    figure, axes = plt.subplots(figsize=(15, 11), layout="constrained")
    rated = points.pleasure.notna().all()
    colour = points.pleasure if rated else "#0072b2"
    span = points.pleasure.abs().quantile(0.95) if rated else None
    dots = axes.scatter(
        points.x, points.y, c=colour, cmap=DIVERGING, vmin=-span if rated else None, vmax=span, s=70,
        edgecolors="#444444", linewidths=0.6, zorder=3,
    )  # fmt: skip
    _spread_labels(axes, points.x, points.y, points.index, size=9, every=True)
    if rated:
        bar = figure.colorbar(dots, ax=axes, shrink=0.5, pad=0.01)
        bar.set_label("predicted pleasure (human scale, -1 to 1)")
    axes.set(xticks=[], yticks=[], xlabel="UMAP 1 (no unit)", ylabel="UMAP 2 (no unit)")
    axes.set_title(
        f"{len(points)} emotion directions in {geometry.model}, layer {geometry.layer} ({geometry.metric}s, cosine)",
        fontsize=15,
    )
    return _finished(figure)


def component_plot(geometry: Geometry, x: str = "PC1", y: str = "PC2") -> Figure:
    """Emotions on two principal components, coloured by the pleasure that the directions predict."""
    places, points = geometry.components, geometry.points
    figure, axes = plt.subplots(figsize=(12, 9), layout="constrained")
    span = points.pleasure.abs().quantile(0.95)
    dots = axes.scatter(
        places[x], places[y], c=points.pleasure, cmap=DIVERGING, vmin=-span, vmax=span, s=45, edgecolors="#444444",
        linewidths=0.5, zorder=3,
    )  # fmt: skip
    _spread_labels(axes, places[x], places[y], places.index, size=8)
    figure.colorbar(dots, ax=axes, shrink=0.5, pad=0.01).set_label("predicted pleasure (human scale, -1 to 1)")
    axes.axhline(0, color="#cccccc", zorder=0)
    axes.axvline(0, color="#cccccc", zorder=0)
    axes.set(
        xlabel=f"{x} ({geometry.variance[x]:.0%} of variance)", ylabel=f"{y} ({geometry.variance[y]:.0%} of variance)"
    )
    axes.set_title(f"Principal components of {len(places)} emotion directions, layer {geometry.layer}")
    return _finished(figure)


def cosine_heatmap(geometry: Geometry) -> Figure:
    """Cosines of all pairs in hierarchical order."""
    order = geometry.order
    figure, axes = plt.subplots(figsize=(13, 12), layout="constrained")
    cosines = geometry.cosines.loc[order, order]
    others = cosines.where(~np.eye(len(order), dtype=bool)).abs()  # the diagonal, all 1, would make the rest pale
    image = axes.imshow(cosines, cmap=f"{DIVERGING}_r", vmin=-others.max().max(), vmax=others.max().max())
    every = max(len(order) // 85, 1)
    ticks = range(0, len(order), every)
    axes.set_xticks(ticks, [order[i] for i in ticks], rotation=90, fontsize=6)
    axes.set_yticks(ticks, [order[i] for i in ticks], fontsize=6)
    figure.colorbar(image, ax=axes, shrink=0.6, extend="max").set_label("cosine (1 on the diagonal)")
    axes.set_title(f"Cosine similarity of {len(order)} emotion directions, layer {geometry.layer}, hierarchical order")
    return _finished(figure)


def rsa_heatmap(rsa: pd.DataFrame) -> Figure:
    """How alike the geometry of any two layers is."""
    figure, axes = plt.subplots(figsize=(7.5, 6.5), layout="constrained")
    image = axes.imshow(rsa, cmap="viridis", vmax=1, origin="lower", extent=_edges(rsa.index) * 2)
    figure.colorbar(image, ax=axes, shrink=0.8).set_label("Spearman correlation of cosine matrices")
    axes.set(xlabel="layer", ylabel="layer", title="Is it the same geometry at every layer?")
    return _finished(figure)


def norm_scatter(geometry: Geometry) -> Figure:
    """Predicted against human ratings, for words whose rating was left out."""
    from emolab import data

    norms = data.norms()
    shared = geometry.points.index.intersection(norms.index)
    figure, panels = plt.subplots(1, 3, figsize=(16, 5.4), layout="constrained")
    for axes, (name, row) in zip(panels, geometry.norms.iterrows(), strict=True):
        x, y = norms.loc[shared, name], geometry.points.loc[shared, name]
        axes.axline((0, 0), slope=1, color="#cccccc", zorder=0)
        axes.scatter(x, y, s=22, color="#0072b2", zorder=3)
        axes.margins(0.1)  # room for the labels at the edges
        _spread_labels(axes, x, y, shared, size=7)
        axes.set(xlabel=f"human {name} (-1 to 1)", ylabel=f"predicted {name}, word left out")
        axes.set_title(f"{name}: r = {row.cv_r:.2f} (95 % {row.cv_low:.2f} to {row.cv_high:.2f})")
    return _finished(figure)


def quality_figure(quality: Quality) -> Figure:
    """Top-1 by layer, and by set of texts, beside words alone and the nulls."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(14, 5), layout="constrained")
    for metric in quality.profile:
        left.plot(
            quality.profile.index, quality.profile[metric], "o-", ms=4, color=METRIC_COLOURS[metric], label=metric
        )
    words = quality.row("choose", "words")
    if words is not None:
        left.axhline(words.top1, color=METRIC_COLOURS[WORDS], ls="--", label=WORDS)
    left.axhline(1 / quality.n_emotions, color="black", ls=":", label="chance")
    left.axvline(quality.layer, color="#cccccc", lw=6, zorder=0, label="chosen layer")
    left.set(
        xlabel="layer", ylabel="true emotion first (share of texts)", ylim=(0, 1), title="By layer, held-out stories"
    )
    left.legend(frameon=False)

    table = quality.identification
    texts = [name for name in TEXTS.values() if name in table.index.get_level_values(0)]
    scorers = [scorer for scorer in METRIC_COLOURS if scorer in table.index.get_level_values(1)]
    for i, scorer in enumerate(scorers):
        here = [name for name in texts if (name, scorer) in table.index]
        rows = table.loc[[(name, scorer) for name in here]]
        x = np.array([texts.index(name) for name in here]) + (i - 1) * 0.27
        error = [rows.top1 - rows.low, rows.high - rows.top1]
        right.bar(x, rows.top1, 0.25, yerr=error, color=METRIC_COLOURS[scorer], label=scorer, capsize=3)
    null = quality.nulls["max"].max()
    right.axhline(null, color="black", ls=":", label=f"best null: {null:.1%}")
    right.set_xticks(range(len(texts)), texts)
    right.set(
        xlabel="held-out texts", ylabel="true emotion first (share of texts)", ylim=(0, 1.02),
        title=f"At layer {quality.layer}, 95 % intervals",
    )  # fmt: skip
    right.legend(frameon=False, loc="upper left")
    return _finished(figure)


def token_tracks(scores: pd.DataFrame, label: str) -> Figure:
    """Scores [token, emotion] over the tokens of a text, one line each, tokens written below."""
    tokens = [token.replace("\n", "\\n").replace("$", r"\$") for token in scores.index.get_level_values("token")]
    figure, axes = plt.subplots(figsize=(min(max(len(tokens) * 0.22, 7), 22), 4.2), layout="constrained")
    colours = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"]
    styles = ["-", "--", ":"]
    for i, name in enumerate(scores):
        axes.plot(
            range(len(tokens)), scores[name], styles[i // len(colours) % 3], color=colours[i % len(colours)], label=name
        )
    axes.axhline(0, color="#999999", lw=0.8)
    axes.set_xticks(range(len(tokens)), tokens, rotation=90, fontsize=8)
    axes.set(ylabel=label, title="Emotions represented, token by token", xlim=(-0.5, len(tokens) - 0.5))
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return _finished(figure)


def _finished(figure: Figure) -> Figure:
    """Off pyplot's list: a notebook shows a figure that ends a cell once, not twice."""
    plt.close(figure)
    return figure


def _spread_labels(axes, x, y, names, size: float, every: bool = False) -> None:
    """Labels that collide with nothing; those without room are left out unless `every` one is wanted."""
    x, y = np.asarray(x), np.asarray(y)
    textalloc.allocate(
        axes, x, y, list(names), x_scatter=x, y_scatter=y, textsize=size, linecolor="#999999", linewidth=0.5,
        min_distance=0.005, max_distance=0.07, nbr_candidates=150, draw_all=every, avoid_label_lines_overlap=True,
    )  # fmt: skip


def _edges(layers: pd.Index) -> tuple[float, float]:
    return (layers[0] - 0.5, layers[-1] + 0.5)


# --- brevity -------------------------------------------------------------------------------------------------------

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
    return _finished(figure)


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
    return _finished(figure)


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
    return _finished(figure)


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
    return _finished(figure)


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
    return _finished(figure)


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


# --- a concept of one's own ----------------------------------------------------------------------------------------


def concept_figure(found) -> Figure:
    """A `concepts.Concept`: its place on the map, its nearest emotions, its share beside emotions and non-emotions."""
    figure = plt.figure(figsize=(16, 8.5), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=[1.7, 1])
    place, near, lies = (figure.add_subplot(grid[cell]) for cell in ((slice(None), 0), (0, 1), (1, 1)))
    points, nearest = found.map(), found.nearest()
    rated, own = points.pleasure.notna().all(), points.iloc[-1]
    span = points.pleasure.abs().quantile(0.95) if rated else None
    dots = place.scatter(
        points.x, points.y, c=points.pleasure if rated else "#0072b2", cmap=DIVERGING,
        vmin=-span if rated else None, vmax=span, s=45, edgecolors="#444444", linewidths=0.5, zorder=3,
    )  # fmt: skip
    for name in nearest.index[:5]:
        place.plot([own.x, points.x[name]], [own.y, points.y[name]], color="#999999", lw=1, zorder=1)
    place.scatter(own.x, own.y, marker="*", s=520, color="#f0e442", edgecolors="black", zorder=5)
    _spread_labels(place, points.x, points.y, points.index, size=8)
    if rated:
        figure.colorbar(dots, ax=place, shrink=0.5, pad=0.01).set_label("predicted pleasure (human scale, -1 to 1)")
    place.set(xticks=[], yticks=[], xlabel="UMAP 1 (no unit)", ylabel="UMAP 2 (no unit)")
    place.set_title(f"'{found.name}' among {len(points) - 1} emotions; lines to the five nearest by cosine")
    rows = nearest.iloc[::-1]
    near.errorbar(
        rows.cosine, range(len(rows)), xerr=[rows.cosine - rows.low, rows.high - rows.cosine], fmt="o", color="#0072b2",
        capsize=3,
    )  # fmt: skip
    near.set_yticks(range(len(rows)), rows.index)
    near.axvline(0, color="#999999", lw=0.8)
    near.set(xlabel="cosine", title="Nearest emotions, 95 % over texts")
    _shares(lies, found)
    return _finished(figure)


def _shares(axes, found) -> None:
    emotions, controls = found.references
    standing = found.likeness
    jitter = np.random.default_rng(0)
    kinds = (("emotions,\nleft out", emotions, "#0072b2"), ("settings and\nkinds of text", controls, "#d55e00"))
    for y, (_, values, colour) in enumerate(kinds):
        axes.scatter(values, y + jitter.uniform(-0.2, 0.2, len(values)), s=16, color=colour, alpha=0.7, linewidths=0)
    error = [[standing.share - standing.low], [standing.high - standing.share]]
    axes.errorbar(
        standing.share, 2, xerr=error, fmt="*", ms=16, color="#f0e442", mec="black", ecolor="black", capsize=4
    )
    axes.axvline(standing.floor, color="#0072b2", ls="--", lw=1, label="95 % of emotions lie above")
    axes.axvline(standing.ceiling, color="#d55e00", ls=":", lw=1.5, label="95 % of non-emotions lie below")
    axes.set_yticks(range(3), [*(label for label, _, _ in kinds), found.name])
    axes.set(
        xlabel="share along the emotions' main directions", title="Does it lie where emotions lie?", xlim=(None, 1)
    )
    axes.set_ylim(2.6, -0.5)
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, fontsize=9)
