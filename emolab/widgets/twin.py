"""Static twins: the prompt lab's `View` as HTML, and what other widgets build theirs of. No script, nothing fetched.

Every text goes through `html.escape`. Charts are SVG within an image: Jupyter takes SVG elements out of notebooks that
it doesn't trust, and leaves images in. Their grey reads on a dark and on a light page.
"""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from emolab.readout import UNITS
from emolab.widgets.lab_view import Difference, Side, View, visible

BLUE, RED = "33,102,172", "178,24,43"  # ColorBrewer RdBu: safe for colour-blind eyes
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#808080")  # Okabe-Ito and two
DASHES = ("", "7 3", "2 3", "9 3 2 3")
GREY = "#808080"
STRIP = "white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.9;font-family:monospace;direction:ltr"
WIDTH, HEIGHT = 860, 220


@dataclass(frozen=True)
class Frozen:
    """The static twin of a widget: HTML without script, which stays in a saved notebook."""

    html: str

    def _repr_html_(self) -> str:
        return self.html


def twin(view: View, shown: str) -> str:
    """The HTML of a view, with one emotion on the token strips."""
    number = view.look.emotions.index(shown) if shown in view.look.emotions else 0
    parts = [element("p", f"Emotions represented ({view.caption}). {_key(view)}")]
    for side in view.sides:
        title = f"{side.title}: {view.look.emotions[number]}" if side.title else view.look.emotions[number]
        parts += [element("h4", title), _strip(side, number, view.scale), _tracks(view, side), _bars(side)]
    if view.difference:
        parts += [
            element("h4", f"A - B: {view.look.emotions[number]} (grey: tokens of one text only)"),
            _gap(view.difference, number, view.scale),
        ]
    if view.sweep:
        parts += [element("h4", view.sweep.template), element("p", "Score of the last token against x")]
        parts += [sweep_chart(view)]
    return f'<div class="emolab-twin">{"".join(parts)}</div>'


def colour(value: float, scale: float) -> str:
    """Blue below zero, red above, stronger the farther out; transparent for what has no score."""
    if not np.isfinite(value):
        return "transparent"
    return f"rgba({RED if value > 0 else BLUE},{min(abs(value) / scale, 1) * 0.75:.2f})"


def sweep_chart(view: View) -> str:
    """Score against x; on a log scale where the values ask for it."""
    sweep = view.sweep
    places = np.array(sweep.x)
    if places.min() > 0 and places.max() / places.min() > 30:
        places = np.log(places)
    order = np.argsort(places)
    labels = [sweep.labels[i] for i in order]
    return _chart(places[order], sweep.scores[order], view, labels)


def _key(view: View) -> str:
    return f"Colour of the tokens: blue {-view.scale:.3g}, red {view.scale:+.3g}."


def _strip(side: Side, number: int, scale: float) -> str:
    cells = [
        token_cell(token, value, scale, f"{value:+.2f}, rank {rank}" if rank else "not scored")
        for token, value, rank in zip(side.tokens, side.scores[:, number], side.ranks[:, number], strict=True)
    ]
    return f'<div style="{STRIP}">{"".join(cells)}</div>'


def _gap(difference: Difference, number: int, scale: float) -> str:
    values = difference.scores[:, number]
    cells = [
        token_cell(token, value, scale, f"{value:+.2f}")
        if np.isfinite(value)
        else token_cell(token, value, scale, "in one of them only", f";color:{GREY};text-decoration:underline dotted")
        for token, value in zip(difference.tokens, values, strict=True)
    ]
    return f'<div style="{STRIP}">{"".join(cells)}</div>'


def token_cell(token: str, value: float, scale: float, title: str, more: str = "") -> str:
    style = f"background:{colour(value, scale)};unicode-bidi:isolate{more}"
    return f'<span style="{style}" title="{escape(title)}">{escape(visible(token))}</span>'


def _bars(side: Side) -> str:
    """The highest emotions at the last token, and over the text."""
    if not side.last:
        return ""
    rows = []
    for name, lists in (("highest at the last token", side.last), ("highest over the text", side.top)):
        rows.append(f"{name}: " + ", ".join(f"{emotion} {value:+.2f}" for emotion, value in lists[:8]))
    return "".join(element("p", row) for row in rows)


def _tracks(view: View, side: Side) -> str:
    each = len(side.tokens) // 100 + 1  # more labels than a hundred would lie on each other
    labels = ["" if i % each else visible(token).strip() for i, token in enumerate(side.tokens)]
    return _chart(np.arange(len(side.tokens)), side.scores, view, labels)


def _chart(places: np.ndarray, scores: np.ndarray, view: View, labels: Sequence[str]) -> str:
    """Lines of [place, emotion] scores, with a legend, the zero line and what stands below each place."""
    low, high = view.reach
    reach = max(high - low, 1e-9)
    span = max(places[-1] - places[0], 1e-9)
    x = 45 + (places - places[0]) / span * (WIDTH - 60)
    y = 30 + (high - scores) / reach * (HEIGHT - 50)  # [place, emotion]
    zero = 30 + high / reach * (HEIGHT - 50)
    drawn = [f'<line x1="45" x2="{WIDTH - 15}" y1="{zero:.1f}" y2="{zero:.1f}" stroke="{GREY}"/>']
    for value in {high, low, 0.0}:
        drawn.append(_label(40, 34 + (high - value) / reach * (HEIGHT - 50), f"{value:.3g}", "end"))
    drawn.append(_label(WIDTH - 15, 16, UNITS[view.look.unit], "end"))
    for n, name in enumerate(view.look.emotions):
        style = f'stroke="{LINES[n % len(LINES)]}" stroke-dasharray="{DASHES[n // 2 % len(DASHES)]}"'
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y[:, n], strict=True) if np.isfinite(b))
        drawn.append(f'<polyline fill="none" stroke-width="2" {style} points="{points}"/>')
        at = 50 + n * 100
        drawn.append(f'<line x1="{at}" x2="{at + 20}" y1="12" y2="12" stroke-width="2" {style}/>')
        drawn.append(_label(at + 24, 16, name[:12], "start"))
    below = 0
    for a, label in zip(x, labels, strict=False):
        drawn.append(_label(a, HEIGHT - 4, label[:14], "end", f' transform="rotate(-60 {a:.1f} {HEIGHT - 4})"'))
        below = 80
    said = escape(f"Scores of {', '.join(view.look.emotions)} ({view.caption})")
    size = f'width="{WIDTH}" height="{HEIGHT + below}" fill="{GREY}" font-size="11" font-family="sans-serif"'
    picture = b64encode(f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{"".join(drawn)}</svg>'.encode()).decode()
    return f'<img alt="{said}" style="max-width:100%" src="data:image/svg+xml;base64,{picture}">'


def _label(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    text = text.translate({0xFFFE: "\ufffd", 0xFFFF: "\ufffd"})  # the two that XML forbids and `visible` lets through
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(text)}</text>'


def element(tag: str, text: str) -> str:
    return f"<{tag}>{escape(visible(text))}</{tag}>"
