"""Check cells of the notebooks: is an answer to an exercise right, and why?

A check costs nothing while there is no answer: whatever is needed to know the truth is computed only then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from numbers import Number
from typing import Any

from emolab.errors import EmolabError

SIGNS = {"right": ("✓", "Right.", "#0072b2"), "wrong": ("✗", "Not yet.", "#d55e00"), "open": ("○", "", "#808080")}
NOTHING = "Not answered yet: put your answer in place of the dots, then run both cells."


@dataclass(frozen=True)
class Checked:
    """What a check found. A notebook shows it as one line.

    state : 'right', 'wrong' or 'open', that is not answered yet
    said : why, as plain text
    """

    state: str
    said: str

    def __str__(self) -> str:
        return " ".join(filter(None, (*SIGNS[self.state][:2], self.said)))

    def _repr_html_(self) -> str:
        sign, word, colour = SIGNS[self.state]
        return f'<p><b style="color:{colour}">{sign} {word}</b> {escape(self.said)}</p>'


def check(answer: Any, truth: Any, right: str, wrong: str, within: float = 0.0) -> Checked:
    """Compare an answer with the truth, and say why it is right or where to look.

    answer : a number, a word, True or False, or several of these; `...` or None if there is none yet
    truth : the same, or a function without arguments that computes it
    right, wrong : what to say; `{truth}` and `{answer}` stand for the two
    within : how far a number may be off

    An answer of another kind than the truth (a word for a number) is told so.
    """
    if _missing(answer):
        return Checked("open", NOTHING)
    truth = truth() if callable(truth) else truth
    if _kind(answer) != _kind(truth):
        return Checked("wrong", f"The answer should be {_kind(truth)}; this is {_kind(answer)}.")
    same = _same(answer, truth, within)
    return Checked("right" if same else "wrong", (right if same else wrong).format(answer=answer, truth=truth))


def judge(answer: Any, rule: Callable[[Any], tuple[bool, str]]) -> Checked:
    """Judge an answer that many can give: `rule(answer)` returns whether it will do, and why.

    What the workbench finds wrong with an answer (an EmolabError) is said instead of raised.
    """
    if _missing(answer):
        return Checked("open", NOTHING)
    try:
        good, said = rule(answer)
    except EmolabError as error:
        return Checked("wrong", str(error))
    return Checked("right" if good else "wrong", said)


def words_apart(one: str, other: str) -> int:
    """How many words of either text are not in the other at that place: 2 for one word exchanged."""
    from difflib import SequenceMatcher

    a, b = one.split(), other.split()
    shared = sum(block.size for block in SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks())
    return len(a) + len(b) - 2 * shared


def _missing(answer: Any) -> bool:
    return answer is ... or answer is None or (isinstance(answer, list | tuple) and any(map(_missing, answer)))


def _kind(value: Any) -> str:
    if isinstance(value, bool) or type(value).__name__ == "bool":  # numpy's too
        return "True or False"
    if isinstance(value, Number):
        return "a number"
    if isinstance(value, str):
        return "a word"
    if isinstance(value, list | tuple | set | frozenset):
        return f"a list of {len(value)}"
    return f"a {type(value).__name__}"


def _same(answer: Any, truth: Any, within: float) -> bool:
    if isinstance(truth, str):
        return answer.strip().casefold() == truth.casefold()
    if isinstance(truth, list | tuple):
        pairs = zip(answer, truth, strict=True)
        return all(_kind(a) == _kind(b) and _same(a, b, within) for a, b in pairs)
    return abs(float(answer) - float(truth)) <= within + 1e-9
