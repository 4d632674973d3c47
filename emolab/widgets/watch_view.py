"""What a monitor saw, as HTML that needs neither kernel nor script: texts with alarms, lines in the margin, a list."""

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from itertools import groupby

import numpy as np

from emolab.watching.watched import COLOURS, Watched
from emolab.widgets.lab_view import SD_RANGE, visible
from emolab.widgets.twin import GREY, STRIP, element, token_cell

MARGIN, TALL = 220, 84  # px, of the lines beside a message


def watched_html(watched: Watched, shown: str = "") -> str:
    """A text coloured by the running mean of one emotion (default the first that raised an alarm), alarms underlined
    in their emotion's colour, and the alarms as a list; a chat with a margin."""
    if set(watched.speakers) - {"", "text", "prompt", "written"}:
        return chat_twin(watched, watched.emotions, shown)
    places = range(len(watched.tokens))
    return _page(watched, shown, f'<div style="{STRIP}">{_cells(watched, places, _column(watched, shown))}</div>')


def chat_twin(watched: Watched | None, emotions: Sequence[str], shown: str = "") -> str:
    """A chat, message by message, each with its watched emotions in the margin."""
    if watched is None:
        said = element("p", f"Watching {', '.join(emotions)}. Nothing is said yet: write a message and press Send.")
        return f'<div class="emolab-twin">{said}</div>'
    column, rows = _column(watched, shown), []
    for speaker, places in messages_of(watched):
        strip = f'<div style="{STRIP};flex:1">{_cells(watched, places, column)}</div>'
        rows.append(
            f'<div style="display:flex;gap:12px;align-items:flex-start"><b style="width:6em;color:{GREY}">'
            f"{escape(visible(speaker))}</b>{strip}{margin(watched, places)}</div>"
        )
    return _page(watched, shown, "".join(rows))


def messages_of(watched: Watched) -> list[tuple[str, list[int]]]:
    """(speaker, tokens) of each message."""
    every = groupby(range(len(watched.tokens)), lambda place: watched.speakers[place])
    return [(speaker, list(places)) for speaker, places in every if speaker]


def margin(watched: Watched, places: Sequence[int]) -> str:
    """Running means over some tokens as lines, thresholds dashed, as an image."""
    means = watched.means[list(places)]  # [token, emotion]
    limits = np.array(list(watched.thresholds.alarm.values()))
    low, high = min(0.0, float(np.nanmin(means))), max(float(limits.max()), float(np.nanmax(means))) * 1.05
    x = 4 + np.arange(len(means)) / max(len(means) - 1, 1) * (MARGIN - 8)
    tall = lambda value: 4 + (high - value) / max(high - low, 1e-9) * (TALL - 8)  # noqa: E731
    drawn = [f'<line x1="0" x2="{MARGIN}" y1="{tall(0):.1f}" y2="{tall(0):.1f}" stroke="{GREY}" stroke-width="0.6"/>']
    for number, limit in enumerate(limits):
        ink = f'stroke="{COLOURS[number % len(COLOURS)]}"'
        points = " ".join(f"{a:.1f},{tall(b):.1f}" for a, b in zip(x, means[:, number], strict=True))
        drawn.append(f'<polyline fill="none" stroke-width="2" {ink} points="{points}"/>')
        drawn.append(
            f'<line x1="0" x2="{MARGIN}" y1="{tall(limit):.1f}" y2="{tall(limit):.1f}" {ink} stroke-dasharray="4 3"/>'
        )
    size = f'width="{MARGIN}" height="{TALL}"'
    picture = b64encode(f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{"".join(drawn)}</svg>'.encode()).decode()
    peaks = ", ".join(f"{n} {v:+.2f}" for n, v in zip(watched.emotions, np.nanmax(means, axis=0), strict=True))
    said = escape(f"Running means; highest: {peaks}")
    return f'<img alt="{said}" title="{said}" {size} src="data:image/svg+xml;base64,{picture}">'


def _page(watched: Watched, shown: str, body: str) -> str:
    t, name = watched.thresholds, watched.emotions[_column(watched, shown)]
    key = "".join(
        f'<span style="border-bottom:3px solid {COLOURS[i % len(COLOURS)]};margin-right:12px">'
        f"{escape(visible(n))} above {t.alarm[n]:+.2f}</span>"
        for i, n in enumerate(watched.emotions)
    )
    colour = (
        f"Colour: mean score of {name} over the last {t.window} tokens, blue {-SD_RANGE:g}, red {SD_RANGE:+g} sd. "
        "Underlined: alarm."
    )
    parts = [element("p", watched.verdict()), element("p", colour), f"<p>{key}</p>", body, _alarms(watched)]
    return f'<div class="emolab-twin">{"".join(parts)}</div>'


def _column(watched: Watched, shown: str) -> int:
    first = next((alarm.emotion for alarm in watched.alarms), watched.emotions[0])
    return watched.emotions.index(shown if shown in watched.emotions else first)


def _alarms(watched: Watched) -> str:
    """The alarms as foldable lines: open one to see its tokens."""
    said = []
    for alarm in watched.alarms:
        ink = COLOURS[watched.emotions.index(alarm.emotion) % len(COLOURS)]
        said.append(
            f'<details><summary><span style="border-bottom:3px solid {ink}">{escape(visible(str(alarm)))}</span>'
            f"</summary><blockquote>{escape(visible(watched.words(alarm)))}</blockquote></details>"
        )
    return "".join(said)


def _cells(watched: Watched, places: Sequence[int], column: int) -> str:
    return "".join(_cell(watched, place, column) for place in places)


def _cell(watched: Watched, place: int, column: int) -> str:
    means = watched.means[place]
    within = [alarm for alarm in watched.alarms if alarm.start <= place < alarm.end]
    said = ", ".join(f"{n} {v:+.2f}" for n, v in zip(watched.emotions, means, strict=True) if np.isfinite(v))
    said += "".join(f"; alarm of {alarm.emotion} from token {alarm.start}" for alarm in within)
    inks = [COLOURS[watched.emotions.index(alarm.emotion) % len(COLOURS)] for alarm in within]
    more = f";border-bottom:3px solid {inks[0]}" if inks else ""
    more += f";border-top:3px solid {inks[1]}" if len(inks) > 1 else ""  # two emotions at once
    return token_cell(watched.tokens[place], float(means[column]), SD_RANGE, said or "not scored", more)
