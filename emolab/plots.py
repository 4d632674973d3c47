"""matplotlib figures. Each takes a result object and gives back a figure; nothing is computed here.

Colours: red-blue diverging (ColorBrewer RdBu, safe for colour-blind eyes) where zero has a meaning.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import textalloc
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

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
    return finished(figure)


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
    return finished(figure)


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
    return finished(figure)


def rsa_heatmap(rsa: pd.DataFrame) -> Figure:
    """How alike the geometry of any two layers is."""
    figure, axes = plt.subplots(figsize=(7.5, 6.5), layout="constrained")
    image = axes.imshow(rsa, cmap="viridis", vmax=1, origin="lower", extent=_edges(rsa.index) * 2)
    figure.colorbar(image, ax=axes, shrink=0.8).set_label("Spearman correlation of cosine matrices")
    axes.set(xlabel="layer", ylabel="layer", title="Is it the same geometry at every layer?")
    return finished(figure)


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
    return finished(figure)


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
    return finished(figure)


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
    return finished(figure)


def finished(figure: Figure) -> Figure:
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
    return finished(figure)


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


# --- two models ----------------------------------------------------------------------------------------------------


def agreement_map(found) -> Figure:
    """An `agreement.Agreement`: both models in one map, each emotion joined to itself."""
    places, (first, second) = found.places, found.models
    figure, axes = plt.subplots(figsize=(15, 11), layout="constrained")
    axes.plot(places[["x", "x2"]].T, places[["y", "y2"]].T, color="#555555", lw=1.6, zorder=1)
    axes.scatter(places.x, places.y, color="#0072b2", s=45, label=first, zorder=3)
    axes.scatter(places.x2, places.y2, color="#e69f00", marker="s", s=36, label=second, zorder=2)
    _spread_labels(axes, places.x, places.y, places.index, size=8, every=True)
    axes.set(xticks=[], yticks=[], xlabel="UMAP 1 (no unit)", ylabel="UMAP 2 (no unit)")
    axes.set_title(f"{len(places)} emotion directions of two models, the second turned onto the first", fontsize=15)
    axes.legend(frameon=False, loc="best")
    return finished(figure)


def agreement_heatmap(found) -> Figure:
    """An `agreement.Agreement`: how alike the geometry of any layer of one model is to any of the other."""
    table = found.layers
    figure, axes = plt.subplots(figsize=(8, 6), layout="constrained")
    extent = (*_edges(table.columns), *_edges(table.index))
    image = axes.imshow(table, cmap="viridis", vmax=1, origin="lower", aspect="auto", extent=extent)
    axes.plot(found.chosen[1], found.chosen[0], "o", mfc="none", mec="white", ms=12, mew=2)
    figure.colorbar(image, ax=axes, shrink=0.8).set_label("Spearman correlation of cosine matrices")
    axes.set(xlabel=f"layer of {found.models[1]}", ylabel=f"layer of {found.models[0]}")
    axes.set_title("Agreement by layer (ring: where each is read)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    return finished(figure)
