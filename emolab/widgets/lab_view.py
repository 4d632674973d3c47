"""What the prompt lab shows, as plain arrays: `View`. Made from Readouts, drawn by `prompt_lab.js` and `twin.py`."""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emolab.errors import EmolabError
from emolab.readout import UNITS, Readout

MOST_EMOTIONS = 8  # more lines can't be told apart
MOST_STEPS = 24  # of a sweep
SD_RANGE = 3.0  # where the colours of the sd unit end, whatever the text: so texts can be compared
SLOT = "{x}"


@dataclass(frozen=True)
class Look:
    """How readouts are looked at: emotions, layer, metric and unit. Raises EmolabError for none or too many."""

    emotions: tuple[str, ...]
    layer: int
    metric: str
    unit: str

    def __post_init__(self):
        if not 1 <= len(self.emotions) <= MOST_EMOTIONS:
            raise EmolabError(f"choose 1 to {MOST_EMOTIONS} emotions: {len(self.emotions)} are chosen")

    @property
    def view(self) -> dict[str, Any]:
        """The arguments that `Readout.scores` takes."""
        return {"layer": self.layer, "metric": self.metric, "unit": self.unit}


@dataclass(frozen=True)
class Side:
    """One text, scored.

    roles : [token] who speaks, '' outside the turns of a chat
    scores : [token, emotion] float32, NaN at token 0
    ranks : [token, emotion] 1 for the highest of all emotions, 0 at token 0
    top, last : (emotion, score) of the highest emotions over all tokens but the first, and at the last token
    """

    title: str
    tokens: tuple[str, ...]
    roles: tuple[str, ...]
    scores: np.ndarray
    ranks: np.ndarray
    top: tuple[tuple[str, float], ...]
    last: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Difference:
    """Two texts aligned on what they share: the tokens of both, [token, emotion] A - B, NaN where one has none."""

    tokens: tuple[str, ...]
    scores: np.ndarray


@dataclass(frozen=True)
class Sweep:
    """[x, emotion] scores of the last token against the number in the slot."""

    template: str
    labels: tuple[str, ...]
    x: tuple[float, ...]
    scores: np.ndarray


@dataclass(frozen=True)
class View:
    """Everything on display. `scale` is the score at which the colours end, `note` what else should be said."""

    look: Look
    sides: tuple[Side, ...] = ()
    difference: Difference | None = None
    sweep: Sweep | None = None
    note: str = ""

    @property
    def scale(self) -> float:
        if self.look.unit == "sd":
            return SD_RANGE
        blocks = [side.scores for side in self.sides] + ([self.sweep.scores] if self.sweep else [])
        values = np.abs(np.concatenate([block.ravel() for block in blocks]))
        return float(np.nanmax(values, initial=1e-9))

    @property
    def reach(self) -> tuple[float, float]:
        """Lowest and highest score of the tracks, 0 included: one axis for all sides, so that they can be compared."""
        blocks = [side.scores for side in self.sides] + ([self.sweep.scores] if self.sweep else [])
        values = np.concatenate([[0.0], *(block[np.isfinite(block)] for block in blocks)])
        return float(values.min()), float(values.max())

    @property
    def caption(self) -> str:
        said = f"{UNITS[self.look.unit]}, layer {self.look.layer}, {self.look.metric}s"
        return f"{said}; {self.note}" if self.note else said

    def payload(self) -> dict[str, Any]:
        """The same for the front end: names and tokens as JSON, scores and ranks as bytes (row by row)."""
        return {
            "emotions": list(self.look.emotions),
            "layer": self.look.layer,
            "caption": self.caption,
            "scale": self.scale,
            "sides": [
                {
                    "title": side.title,
                    "tokens": [visible(token) for token in side.tokens],
                    "roles": list(side.roles),
                    "top": [list(pair) for pair in side.top],
                    "last": [list(pair) for pair in side.last],
                    "scores": side.scores.tobytes(),
                    "ranks": side.ranks.tobytes(),
                }
                for side in self.sides
            ],
            "difference": self.difference
            and {"tokens": [visible(t) for t in self.difference.tokens], "scores": self.difference.scores.tobytes()},
            "sweep": self.sweep
            and {"labels": list(self.sweep.labels), "x": list(self.sweep.x), "scores": self.sweep.scores.tobytes()},
        }


def text_view(readouts: Sequence[Readout], look: Look) -> View:
    """One text, or two side by side with their difference (first - second)."""
    titles = ("",) if len(readouts) == 1 else ("A", "B")
    sides = tuple(_side(title, readout, look) for title, readout in zip(titles, readouts, strict=True))
    if len(readouts) == 1:
        return View(look, sides)
    table = readouts[0].compare(readouts[1], list(look.emotions), **look.view)
    difference = table.xs("difference", axis=1, level=1)[list(look.emotions)]
    return View(look, sides, Difference(tuple(table.index.get_level_values("token")), _float32(difference)))


def sweep_view(template: str, labels: Sequence[str], readouts: Sequence[Readout], look: Look) -> View:
    """The last token's scores over the values of x."""
    rows = [readout.scores(list(look.emotions), **look.view).to_numpy()[-1] for readout in readouts]
    return View(look, sweep=Sweep(template, tuple(labels), tuple(map(float, labels)), _float32(np.stack(rows))))


def sweep_values(x: str) -> list[str]:
    """The numbers in a list such as '1, 2, 5' as they are written. Raises EmolabError if they can't be used."""
    values = x.replace(",", " ").replace(";", " ").split()
    for value in values:
        try:
            good = math.isfinite(float(value))
        except ValueError:
            good = False
        if not good:
            raise EmolabError(f"{value[:40]!r} among the values of x is not a number: write them like '1, 2, 5'")
    if not 2 <= len(values) <= MOST_STEPS:
        raise EmolabError(f"a sweep takes 2 to {MOST_STEPS} values of x, and here are {len(values)}")
    return values


def filled(template: str, values: Sequence[str]) -> list[str]:
    """The template with each value in its slot. Raises EmolabError unless it has exactly one slot."""
    if (slots := template.count(SLOT)) != 1:
        raise EmolabError(f"the template has {slots or 'no'} slots {SLOT}: write {SLOT} once, where the number goes")
    return [template.replace(SLOT, value) for value in values]


def visible(text: str) -> str:
    """The text with a sign for each control or invisible character, one for one; line feed and tab stay.

    >>> visible("a\\x1b[31m\\u200bb")
    'a␛[31m◌b'
    """
    return "".join(_sign(character) for character in text)


def sound(text: str) -> str:
    """The text with halves of characters, which no tokenizer takes, replaced."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _sign(character: str) -> str:
    if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs"):
        return character
    code = ord(character)
    return chr(0x2400 + code) if code < 32 else "␡" if code == 127 else "◌"


def _side(title: str, readout: Readout, look: Look) -> Side:
    names = readout.vectors.emotions
    scores = readout.scores(**look.view).to_numpy()  # [token, all emotions]
    chosen = scores[:, [readout.vectors.index(name) for name in look.emotions]]  # [token, emotion]
    ranks = 1 + (scores[:, None, :] > chosen[:, :, None]).sum(2)
    ranks[0] = 0
    roles = [""] * len(readout.tokens)
    for turn in readout.turns:
        roles[turn.tokens] = [turn.role] * len(roles[turn.tokens])
    scored = len(scores) > 1
    return Side(
        title,
        readout.tokens,
        tuple(roles),
        _float32(chosen),
        np.ascontiguousarray(ranks, np.uint16),
        _highest(names, scores[1:].mean(0)) if scored else (),
        _highest(names, scores[-1]) if scored else (),
    )


def _highest(names: Sequence[str], values: np.ndarray, k: int = 10) -> tuple[tuple[str, float], ...]:
    return tuple((names[i], float(values[i])) for i in np.argsort(-values)[:k])


def _float32(values) -> np.ndarray:
    return np.ascontiguousarray(values, np.float32)
