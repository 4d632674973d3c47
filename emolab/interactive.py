"""The map to click on: as a widget in a notebook, and as one HTML file that asks nothing of the network.

Both show the same data with the same script, `widgets/emotion_map.js`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import to_hex

from emolab import data
from emolab.directions import unit
from emolab.errors import EmolabError
from emolab.files import atomic
from emolab.geometry import Geometry

if TYPE_CHECKING:
    from emolab.model import Subject
    from emolab.vectors import EmotionVectors

_PAGE = Path(__file__).parent / "static" / "map.html"
NEAREST = 8
STORIES = 3  # of each emotion
WORDS = 10
PLAIN = "#0072b2"  # where there is no pleasure to colour by


def top_tokens(subject: Subject, vectors: EmotionVectors, k: int = WORDS) -> dict[str, tuple[str, ...]]:
    """The k tokens that each vector makes likelier than the others do, at its deepest layer.

    The words of `lens.logit_lens`, without its nulls and rates, and so within a second.
    Raises EmolabError for vectors of another model.
    """
    import torch

    from emolab.unembed import shown, unembedding

    vectors.check(subject)
    states = unit(vectors.vectors[:, -1]) * np.sqrt(subject.d_model)  # any length: a norm follows
    states = torch.from_numpy(states).to(subject.device, subject.dtype)
    logits = unembedding(subject)(states).float()[:, : len(subject.tokenizer)]  # [emotion, token]
    logits = logits - logits.mean(0)
    logits[:, [i for i in subject.tokenizer.all_special_ids if i < logits.shape[1]]] = -torch.inf
    top = logits.topk(min(k, logits.shape[1])).indices.tolist()
    return {name: tuple(shown(subject, i) for i in row) for name, row in zip(vectors.emotions, top, strict=True)}


def map_data(geometry: Geometry, words: Mapping[str, Sequence[str]] | None = None, chosen: str | None = None) -> dict:
    """What the map shows, as plain JSON: each emotion's place (0..1, from the upper left), colour, nearest, stories.

    words : top tokens of each emotion, as from `top_tokens`
    chosen : the emotion to open with, default the first

    Raises EmolabError for an emotion that is not on the map.
    """
    points = geometry.points
    chosen = points.index[0] if chosen is None else chosen
    if chosen not in points.index:
        raise EmolabError(f"{chosen!r} is not on this map of {len(points)} emotions")
    places = points[["x", "y"]].to_numpy()
    spread = np.maximum(np.ptp(places, axis=0), 1e-9)
    x, y = ((places - places.min(0)) / spread).T
    senses, stories = data.senses(), _stories(points.index)
    emotions = [
        {
            "name": name,
            "x": round(float(x[row]), 4),
            "y": round(1 - float(y[row]), 4),
            "colour": colour,
            "sense": senses.get(name, ""),
            "placed": _placed(points.loc[name]),
            "near": [[k, round(float(v), 3)] for k, v in geometry.cosines[name].drop(name).nlargest(NEAREST).items()],
            "words": list((words or {}).get(name, ())),
            "stories": stories.get(name, []),
        }
        for row, (name, colour) in enumerate(zip(points.index, _colours(points.pleasure), strict=True))
    ]
    return {
        "title": f"{len(points)} emotion directions in {geometry.model}, layer {geometry.layer}",
        "caption": "click an emotion; drag to move, double-click to zoom. Red: low predicted pleasure, blue: high",
        "lens": "Tokens that its vector makes likelier, at the deepest layer read (· is a blank)",
        "chosen": chosen,
        "emotions": emotions,
    }


def interactive_map(geometry: Geometry):
    """The map as a widget, without tokens; `emolab.emotion_map(subject, vectors)` has these too."""
    from emolab.widgets.emotion_map import EmotionMap

    return EmotionMap(map_data(geometry))


def write_map(geometry: Geometry, path: Path, words: Mapping[str, Sequence[str]] | None = None) -> Path:
    """The map as one HTML file; `words` as from `top_tokens`."""
    from emolab.widgets import front

    shown = map_data(geometry, words)
    page = Template(_PAGE.read_text(encoding="utf-8")).substitute(
        title=escape(shown["title"]),
        style=front("prompt_lab.css", "emotion_map.css"),
        script=front("common.js", "emotion_map.js"),
        data=json.dumps(shown).replace("<", "\\u003c"),  # no text can end the script element
    )
    with atomic(path) as scratch:
        scratch.write_text(page, encoding="utf-8")
    return path


def _colours(pleasure: pd.Series) -> list[str]:
    """[emotion] red for low, blue for high predicted pleasure; one colour for all if it is not known."""
    if pleasure.isna().any():
        return [PLAIN] * len(pleasure)
    span = pleasure.abs().quantile(0.95) or 1.0
    return [to_hex(colormaps["RdBu"](0.5 + value / span / 2)) for value in pleasure.clip(-span, span)]


def _placed(row: pd.Series) -> str:
    where = f"cluster {int(row.cluster) + 1}"
    if np.isnan(row.pleasure):
        return where
    return f"{where}; predicted pleasure {row.pleasure:+.2f}, arousal {row.arousal:+.2f}"


def _stories(names: Sequence[str]) -> dict[str, list[dict]]:
    """Of the stories that come with emolab, for the emotions that they are about."""
    parts = pd.read_csv(data.DATA / "parts.tsv", sep="\t").query("file == 'stories'").set_index("part")
    settings = (parts.genre + ": " + parts.setting).to_dict()
    found: dict[str, list[dict]] = {}
    for story in data.stories(emotions=sorted(set(names) & set(data.emotions()))):
        found.setdefault(story.emotion, []).append({"part": settings.get(story.part, story.part), "text": story.text})
    return {name: all_of[:: max(1, len(all_of) // STORIES)][:STORIES] for name, all_of in found.items()}
