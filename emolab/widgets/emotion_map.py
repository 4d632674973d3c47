"""`emotion_map()`: all directions as a map; click one to see its nearest, its stories, its top tokens.

All of it is computed beforehand (`interactive.py`), so clicking needs no kernel; `emotion_map.js` draws.
"""

from __future__ import annotations

import traitlets as t

from emolab.errors import EmolabError
from emolab.geometry import Geometry
from emolab.interactive import map_data, top_tokens
from emolab.model import Subject
from emolab.vectors import EmotionVectors
from emolab.widgets import front
from emolab.widgets.live import LiveWidget
from emolab.widgets.twin import Frozen, element


class EmotionMap(LiveWidget):
    """The map in a notebook. `chosen` is the emotion it tells about: set it, or click.

    data : what `interactive.map_data` gives
    """

    _esm = front("common.js", "emotion_map.js")
    _css = front("prompt_lab.css", "emotion_map.css")

    data = t.Dict().tag(sync=True)
    chosen = t.Unicode("").tag(sync=True)

    def __init__(self, data: dict):
        super().__init__(data=data, chosen=data["chosen"])

    @t.validate("chosen")
    def _on_the_map(self, proposal: dict) -> str:
        if proposal["value"] not in {one["name"] for one in self.data["emotions"]}:
            raise EmolabError(f"{proposal['value']!r} is not on this map")
        return proposal["value"]

    def freeze(self) -> Frozen:
        """The chosen emotion as HTML without script: sense, nearest, tokens, one story."""
        emotion = next(one for one in self.data["emotions"] if one["name"] == self.chosen)
        near = ", ".join(f"{name} {cosine:+.2f}" for name, cosine in emotion["near"])
        parts = [element("h4", emotion["name"]), element("p", emotion["sense"]), element("p", emotion["placed"])]
        parts.append(element("p", f"Nearest directions (cosine): {near}"))
        if emotion["words"]:
            parts.append(element("p", f"{self.data['lens']}: {'  '.join(emotion['words'])}"))
        if emotion["stories"]:
            parts.append(element("p", f"One of its stories: {emotion['stories'][0]['text']}"))
        return Frozen(f'<div class="emolab-twin">{element("p", self.data["title"])}{"".join(parts)}</div>')

    def __repr__(self) -> str:
        return f"EmotionMap({len(self.data['emotions'])} emotions, {self.chosen})"


def emotion_map(
    subject: Subject, vectors: EmotionVectors, emotion: str | None = None, geometry: Geometry | None = None
) -> EmotionMap:
    """The map of all directions to click on, with each one's nearest, stories and top tokens (paper section 2).

    emotion : the one to open with
    geometry : the map, if there is one already; else it is made

    Raises EmolabError for vectors of another model, fewer than five emotions, or one that is not on the map.
    """
    vectors.check(subject)
    geometry = geometry or vectors.geometry()
    return EmotionMap(map_data(geometry, top_tokens(subject, vectors), emotion))
