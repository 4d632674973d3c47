"""The interactive map: plotly, with hover and search, in one HTML file that asks nothing of the network."""

from html import escape
from pathlib import Path
from string import Template

import plotly.graph_objects as go

from emolab import data
from emolab.files import atomic
from emolab.geometry import Geometry

_PAGE = Path(__file__).parent / "static" / "map.html"


def interactive_map(geometry: Geometry) -> go.Figure:
    """All directions by UMAP; hover for the sense of the word, its cluster, its nearest emotions."""
    points, senses = geometry.points, data.senses()
    hover = [
        f"<b>{escape(name)}</b><br>{escape(senses.get(name, ''))}<br>cluster {int(row.cluster) + 1}"
        f"<br>predicted pleasure {row.pleasure:+.2f}, arousal {row.arousal:+.2f}"
        f"<br>nearest: {escape(', '.join(geometry.cosines[name].drop(name).nlargest(5).index))}"
        for name, row in points.iterrows()
    ]
    span = points.pleasure.abs().quantile(0.95)
    figure = go.Figure(
        go.Scatter(
            x=points.x,
            y=points.y,
            mode="markers+text",
            text=[escape(name) for name in points.index],
            textposition="top center",
            textfont={"size": 10},
            hovertext=hover,
            hoverinfo="text",
            marker={
                "size": 11,
                "color": points.pleasure,
                "colorscale": "RdBu",
                "cmin": -span,
                "cmax": span,
                "line": {"width": 0.6, "color": "#444"},
                "colorbar": {"title": {"text": "predicted<br>pleasure"}, "len": 0.5},
            },
        )
    )
    figure.update_layout(
        title=f"{len(points)} emotion directions in {escape(geometry.model)}, layer {geometry.layer}",
        template="plotly_white",
        height=800,
        xaxis={"visible": False},
        yaxis={"visible": False},
        margin={"l": 10, "r": 10, "t": 50, "b": 10},
    )
    return figure


def write_map(geometry: Geometry, path: Path) -> Path:
    """The interactive map with a search box as one HTML file."""
    plot = interactive_map(geometry).to_html(
        full_html=False, include_plotlyjs=True, div_id="map", config={"responsive": True}
    )
    options = "".join(f'<option value="{escape(name, quote=True)}">' for name in geometry.points.index)
    page = Template(_PAGE.read_text(encoding="utf-8")).substitute(
        title=f"Emotion map: {escape(geometry.model)}", options=options, plot=plot
    )
    with atomic(path) as scratch:
        scratch.write_text(page, encoding="utf-8")
    return path
