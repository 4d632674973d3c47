"""Check cells: right, wrong, not answered, and safe to show."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import emolab as el
from emolab.teaching import check, judge, words_apart

HERE = Path(__file__).parent.parent / "notebooks"
LESSONS = [path for path in sorted(HERE.glob("*.ipynb")) if path.name < "10"]


@pytest.mark.parametrize("nothing", [..., None, [1, ...], ("a", None)])
def test_an_exercise_that_is_not_answered_computes_nothing(nothing):
    def truth():
        raise AssertionError("computed although there is no answer")

    assert check(nothing, truth, "", "").state == "open"
    assert judge(nothing, truth).state == "open"


@pytest.mark.parametrize(
    "answer, truth, within, state",
    [
        (" Angry ", "angry", 0, "right"),
        ("sad", "angry", 0, "wrong"),
        (0.19, 0.182, 0.01, "right"),
        (0.21, 0.182, 0.01, "wrong"),
        (3, np.int64(3), 0, "right"),
        (float("nan"), 1.0, 9, "wrong"),
        (True, np.bool_(True), 0, "right"),
        (False, True, 0, "wrong"),
        (1, True, 0, "wrong"),
        ("three", 3, 0, "wrong"),
        ([True, False], (True, False), 0, "right"),
        ([True], (True, False), 0, "wrong"),
        (["a", 1], ("a", "b"), 0, "wrong"),
        ({"a": 1}, 3, 0, "wrong"),
    ],
)
def test_right_and_wrong(answer, truth, within, state):
    for known in (truth, lambda: truth):
        found = check(answer, known, "yes {truth}", "no {answer}", within)
        assert found.state == state and str(found)
    if state == "right":
        assert found.said == f"yes {truth}"


def test_a_rule_may_refuse_with_an_error():
    def rule(text):
        if not text:
            raise el.EmolabError("an empty text has no tokens")
        return len(text) > 3, "long enough" if len(text) > 3 else "too short"

    assert [judge(text, rule).state for text in ("", "ab", "abcd")] == ["wrong", "wrong", "right"]
    assert judge("", rule).said == "an empty text has no tokens"


def test_answers_are_shown_as_text():
    found = check("<img src=x onerror=alert(1)>{0}", "b", "", "no {answer}")
    assert "<img" not in found._repr_html_() and "&lt;img" in found._repr_html_()


def test_words_apart():
    assert words_apart("a cup of bleach", "a cup of milk") == 2
    assert words_apart("a b", "a b") == 0
    assert words_apart("", "a b") == 2


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_every_notebook_teaches(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    for part in ("**The claim.**", "**Time.**", "arXiv|arxiv", "What this model showed", "What it did not show"):
        assert re.search(part.replace("*", r"\*"), prose), part
    assert re.search("prediction|do you expect", prose) and "glossary.md" in prose
    checks = [
        cell
        for cell in cells
        if cell["cell_type"] == "code" and re.search(r"^(check|judge)\(", "".join(cell["source"]), re.M)
    ]
    assert len(checks) >= 2
    for cell in checks:  # saved without answers, and with the solution folded away
        assert "Not answered yet" in json.dumps(cell["outputs"])
        assert cell["metadata"]["jupyter"]["source_hidden"]
