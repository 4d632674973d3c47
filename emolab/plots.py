"""matplotlib figures. Each takes a result object and gives back a figure; nothing is computed here.

Colours: red-blue diverging (ColorBrewer RdBu, safe for colour-blind eyes) where zero has a meaning.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import textalloc
from matplotlib.figure import Figure

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
    image = axes.imshow(geometry.cosines.loc[order, order], cmap=f"{DIVERGING}_r", vmin=-1, vmax=1)
    every = max(len(order) // 85, 1)
    ticks = range(0, len(order), every)
    axes.set_xticks(ticks, [order[i] for i in ticks], rotation=90, fontsize=6)
    axes.set_yticks(ticks, [order[i] for i in ticks], fontsize=6)
    figure.colorbar(image, ax=axes, shrink=0.6).set_label("cosine")
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
    right.axhline(quality.nulls["max"].max(), color="black", ls=":", label="best null")
    right.set_xticks(range(len(texts)), texts)
    right.set(
        ylabel="true emotion first (share of texts)", ylim=(0, 1.02), title=f"At layer {quality.layer}, 95 % intervals"
    )
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
