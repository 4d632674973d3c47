"""What the steering desk shows: two `Written` texts, as numbers and as HTML that needs neither kernel nor script."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emolab.model import Subject
from emolab.vectors import EmotionVectors
from emolab.widgets.lab_view import SD_RANGE
from emolab.widgets.twin import STRIP, element, token_cell
from emolab.writing import Both, pieces, repeated, reread

SIDES = ("Without the push", "With the push")


@dataclass(frozen=True)
class Written:
    """One text, read again without any push.

    tokens : [token] pieces of the text, prompt included
    prompt : how many of them are the prompt
    scores : [token, emotion] in sd of neutral tokens, NaN at token 0
    pushed : [token] whether it was really pushed
    perplexity, repeats : of what was written, under the unpushed model; NaN if nothing was
    """

    tokens: tuple[str, ...]
    prompt: int
    scores: np.ndarray
    pushed: np.ndarray
    perplexity: float
    repeats: float

    def figures(self, emotions: tuple[str, ...]) -> dict[str, float]:
        """What is said below the text: means over what was written, and damage."""
        own = self.scores[max(self.prompt, 1) :]
        means = own.mean(0) if len(own) else np.full(len(emotions), np.nan)
        said = {name: float(mean) for name, mean in zip(emotions, means, strict=True)}
        return said | {"perplexity": self.perplexity, "repeated 3-grams": self.repeats}


def read_again(
    subject: Subject, vectors: EmotionVectors, both: Both, prompt: int, emotions: tuple[str, ...]
) -> tuple[Written, Written]:
    columns = [vectors.index(name) for name in emotions]
    ids = (both.plain, both.steered)
    found = []
    for number, (row, read) in enumerate(zip(ids, reread(subject, vectors, ids), strict=True)):
        own = read.losses[max(prompt, 1) :]
        pushed = np.array([bool(number) and place in both.pushed for place in range(len(row))])
        perplexity = float(np.exp(own.mean())) if len(own) else float("nan")
        scores = read.scores[:, columns]
        found.append(Written(tuple(pieces(subject, row)), prompt, scores, pushed, perplexity, repeated(row[prompt:])))
    return tuple(found)


def desk_twin(where: str, caption: str, written: Sequence[Written], emotions: tuple[str, ...], shown: str) -> str:
    """The desk as HTML without script: what was pushed and where, and both texts with one emotion's colours."""
    parts = [element("p", f"Steering desk: {where}.")]
    if not written:
        return f'<div class="emolab-twin">{"".join(parts)}{element("p", "Nothing is written yet: press Run.")}</div>'
    number = emotions.index(shown) if shown in emotions else 0
    said = f"{caption}. Colour: {emotions[number]}, blue {-SD_RANGE:g}, red {SD_RANGE:+g}"
    parts.append(element("p", f"{said}. Underlined: pushed."))
    for title, side in zip(SIDES, written, strict=True):
        cells = [
            _cell(token, side.scores[i, number], bool(side.pushed[i]), i < side.prompt)
            for i, token in enumerate(side.tokens)
        ]
        figures = [f"{name} {_shown(name, value)}" for name, value in side.figures(emotions).items()]
        parts += [element("h4", title), f'<div style="{STRIP}">{"".join(cells)}</div>']
        parts.append(element("p", ", ".join(figures)))
    return f'<div class="emolab-twin">{"".join(parts)}</div>'


def _cell(token: str, value: float, pushed: bool, prompt: bool) -> str:
    said = [f"{value:+.2f}" if np.isfinite(value) else "not scored", "prompt" if prompt else "written"]
    cell = token_cell(token, value, SD_RANGE, ", ".join(said + ["pushed"] * pushed))
    style = ("border-bottom:2px solid #e69f00;" if pushed else "") + ("opacity:.75;" if prompt else "")
    return f'<span style="{style}">{cell}</span>' if style else cell


def _shown(name: str, value: float) -> str:
    if not np.isfinite(value):
        return "-"
    if name == "perplexity":
        return f"{value:.1f}"
    return f"{value:.0%}" if name.startswith("repeated") else f"{value:+.2f} sd"
