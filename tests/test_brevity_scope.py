"""The brevity scope shows what the results say, runs the model once for each, and keeps all text as text."""

import re
from html import unescape

import numpy as np
import pytest
from conftest import counted, tiny_text
from hypothesis import given, settings
from hypothesis import strategies as st
from test_prompt_lab import NASTY, Page

import emolab as el
from emolab.decay import half_life
from emolab.passage import Event, Passage, read_passage
from emolab.persistence import EMOTION, GONE, HELD, NULLS, CarryOver, Persistence, carry_over, persistence
from emolab.pulse import Pulse, pulse
from emolab.tracks import Tracks
from emolab.widgets.brevity_scope import ALL, TEXT, VIEWS, brevity_scope
from emolab.widgets.lab_view import visible

MARKED = " | ".join(tiny_text(seed, words=30) for seed in (1, 2, 3))


@pytest.fixture(scope="module")
def found(long_tiny, long_vectors):
    return (
        persistence(long_tiny, long_vectors, seeds=2),
        carry_over(long_tiny, long_vectors, seeds=2),
        pulse(long_tiny, long_vectors, ["afraid", "calm", "angry"], texts=2, seeds=2),
    )


@pytest.fixture
def scope(long_tiny, long_vectors, found):
    return brevity_scope(long_tiny, long_vectors, *found, view="own", text=MARKED)


@pytest.fixture
def forwards(long_tiny):
    with counted(long_tiny) as ran:
        yield ran


def words(scope) -> str:
    """The first paragraph of the answer."""
    return unescape(re.search(r"<p>(.*?)</p>", scope.answer.value, re.DOTALL)[1])


def strip(scope) -> str:
    return "".join(Page(scope.answer.value).tokens)


# --- what is shown is the result ---------------------------------------------------------------------------------


@pytest.mark.parametrize("view, number", [("around", 0), ("carried", 1), ("pulse", 2)])
@pytest.mark.parametrize("emotion", [ALL, "calm"])
def test_words_and_figure_are_those_of_the_result(scope, found, view, number, emotion):
    scope.view.value, scope.emotion.value = view, emotion
    assert words(scope) == found[number].verdict(None if emotion == ALL else emotion)
    assert Page(scope.answer.value).attributes["src"].startswith("data:image/png;base64,")


def test_a_passage_is_chosen_by_emotion_and_shown_with_its_event(long_tiny, scope, found):
    passages = found[0].passages(long_tiny)
    scope.view.value, scope.emotion.value = "passage", ALL
    assert len(scope.passage.options) == len(passages)
    scope.emotion.value = "angry"
    assert {passages[i].event.emotion for _, i in scope.passage.options} == {"angry"}
    scope.passage.value = scope.passage.options[1][1]
    passage = passages[scope.passage.value]
    assert words(scope) == passage.verdict() and strip(scope) == "".join(passage.tokens)
    shown = scope.answer.value
    before, within, after = re.split(r"<b [^>]*>the event (?:begins|ends)</b>", shown)
    assert [part.count("<span") for part in (before, within)] == [
        passage.event.start, passage.event.end - passage.event.start,
    ]  # fmt: skip
    assert ("fallen to half" in after) == (passage.fallen is not None)


def test_a_text_of_ones_own(long_tiny, long_vectors, scope):
    scope.view.value = "own"
    assert list(scope.emotion.options) == list(long_vectors.emotions)
    assert strip(scope) == MARKED.replace(" |", "")
    for emotion in long_vectors.emotions:
        scope.emotion.value = emotion
        assert words(scope) == read_passage(long_tiny, long_vectors, MARKED, emotion).verdict()
        score = long_vectors.readout(long_tiny, MARKED.replace(" |", "")).scores(emotion)[emotion].to_numpy()
        assert f"{emotion} averages {score[30:60].mean():.2f} sd" in words(scope)


# --- one passage -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("true", [2, 5, 20])
def test_a_planted_half_life_comes_back(true):
    scores = np.zeros((180, 7, 1))
    scores[60:120, 0, 0] = 3.0
    scores[120:, 0, 0] = 3.0 * 0.5 ** (np.arange(1, 61) / true)
    tracks = Tracks(("afraid",), (EMOTION, *(kind for kind in NULLS for _ in range(2))), (scores,), 1, "toy")
    passage = Passage(tracks, Event(0, "afraid", 60, 120, 180, "neutral"))
    half_lives = passage.table().half_life
    assert (half_lives[EMOTION], half_lives[GONE], half_lives[HELD]) == (true, 1, np.inf)
    assert passage.fallen == 120 + true - 1 and f"Token {true} after the end is the first" in passage.verdict()
    assert half_life(scores[120:, 0, 0], 3.0) == (true, True)


def test_without_a_rise_there_is_no_half_life():
    tracks = Tracks(("afraid",), (EMOTION, *NULLS), (np.zeros((60, 4, 1)),), 1, "toy")
    passage = Passage(tracks, Event(0, "afraid", 20, 40, 60, "neutral"))
    assert passage.fallen is None and "nothing rose, so nothing can fall" in passage.verdict() and passage.figure()


def test_an_opening_can_be_left_out(long_tiny, long_vectors):
    passage = read_passage(long_tiny, long_vectors, MARKED.partition("| ")[2], "calm", seeds=2)
    assert passage.event == Event(0, "calm", 0, 30, 60, "neutral") and GONE not in passage.table().index
    assert "before it" not in passage.verdict() and passage.figure()
    with pytest.raises(el.EmolabError, match="did you mean 'calm'"):
        passage.of("clam")


# --- the model runs when it has to -------------------------------------------------------------------------------


def test_what_is_given_is_not_computed_again(long_tiny, long_vectors, found, forwards):
    scope = brevity_scope(long_tiny, long_vectors, *found, text=MARKED)
    assert scope.view.value == "around"
    for view in ("around", "passage", "carried", "pulse"):
        scope.view.value = view
        for emotion in (ALL, "calm"):
            scope.emotion.value = emotion
    assert not forwards
    scope.view.value = "own"
    assert len(forwards) == 1
    for emotion in long_vectors.emotions:
        scope.emotion.value = emotion
    scope.view.value = "around"
    scope.view.value = "own"
    scope.read.click()
    assert len(forwards) == 1
    scope.text.value = MARKED + " dog"
    assert len(forwards) == 2


def test_what_is_missing_is_computed_once_with_a_message(long_tiny, long_vectors, forwards):
    scope = brevity_scope(long_tiny, long_vectors, text=MARKED)
    assert scope.view.value == "own" and not scope.found and len(forwards) == 1
    said = []
    scope.status.observe(lambda change: said.append(change.new), "value")
    for view, kind in (("around", Persistence), ("carried", CarryOver), ("pulse", Pulse)):
        scope.view.value = view
        assert kind in scope.found and "<img" in scope.answer.value
        assert any("Computing, once" in message for message in said) and said[-1] == scope.status.value == ""
        ran = len(forwards)
        said.clear()
        scope.view.value, scope.view.value, scope.emotion.value = "own", view, "calm"
        assert len(forwards) == ran and not any("Computing" in message for message in said)
    scope.view.value = "passage"
    assert len(forwards) == ran


# --- errors in place ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, message",
    [
        (" \n", "the text is empty"),
        ("|  |", "the text is empty"),
        (tiny_text(1), r"the text has no marks \|"),
        ("a|b|c|d", r"the text has 3 marks \|"),
        (f"| {tiny_text(1)} | {tiny_text(2)}", "part 1 is empty"),
        (f"{tiny_text(1)} | the dog | {tiny_text(2)}", "part 2 is too short.* this one has 2"),
        ("dog " * 300 + "|" + " dog" * 300, "has 601 tokens and the scope shows at most 512"),
        ("<b>" * 100_000, "300,000 characters"),
    ],
)
def test_an_error_stands_in_place_and_goes(scope, text, message):
    scope.view.value = "own"
    good = scope.answer.value
    scope.text.value = text
    assert re.search(message, words(scope)) and 'role="alert"' in scope.answer.value
    assert "<img" not in scope.answer.value and scope.status.value == ""
    scope.text.value = MARKED
    assert scope.answer.value == good


def test_what_cannot_be_computed_is_said_in_place(tiny, tiny_vectors, long_tiny, long_vectors):
    scope = brevity_scope(tiny, tiny_vectors)
    assert "tokens and the scope shows at most 64" in words(scope)
    scope.view.value = "around"
    assert "reads at most 64" in words(scope)
    scope = brevity_scope(long_tiny, long_vectors[["calm", "afraid"]], text=MARKED)
    assert "evidence" in words(scope)


def test_an_unforeseen_error_is_shown_too(scope, monkeypatch):
    monkeypatch.setattr(scope, "_own", lambda: 1 / 0)
    scope.emotion.value = "angry"
    assert words(scope) == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"emotion": "clam"}, "did you mean 'calm'"),
        ({"emotion": "all", "view": "own"}, "unknown emotion in the view 'own'"),
        ({"view": "arround"}, "did you mean 'around'"),
    ],
)
def test_a_wrong_call_is_the_callers_error(long_tiny, long_vectors, found, options, message):
    with pytest.raises(el.EmolabError, match=message):
        brevity_scope(long_tiny, long_vectors, *found, **options)


def test_results_of_something_else_are_refused(subject, shipped, long_tiny, long_vectors, found):
    with pytest.raises(el.EmolabError, match="found DataFrame"):
        brevity_scope(long_tiny, long_vectors, found[0].lives)
    with pytest.raises(el.EmolabError, match="compute it with this subject"):
        brevity_scope(subject, shipped, found[1])


# --- the static twin ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS)
def test_a_saved_notebook_holds_a_twin_without_script(scope, view):
    scope.view.value = view
    data = scope._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data and data["text/plain"].startswith("BrevityScope(")
    page = Page(data["text/html"])
    assert data["text/html"] == scope.freeze()._repr_html_() and scope.answer.value in data["text/html"]
    assert page.tags <= {"div", "p", "span", "b", "img"} and set(page.attributes) <= {
        "class",
        "style",
        "title",
        "alt",
        "src",
    }
    assert not re.search(r"https?:|url\(|@import", data["text/html"])


@settings(deadline=None, max_examples=30)
@given(parts=st.lists(st.text(max_size=30) | st.sampled_from(NASTY), min_size=1, max_size=4))
def test_any_text_can_be_typed(long_tiny, long_vectors, parts):
    scope = brevity_scope(
        long_tiny, long_vectors, view="own", text=" | ".join(f"{part} {tiny_text(1)}" for part in parts)
    )
    page = Page(scope.freeze().html)
    assert page.tags <= {"div", "p", "span", "b", "img"}
    assert set(page.attributes) <= {"class", "style", "title", "alt", "src", "role"}
    if 'role="alert"' not in scope.answer.value:
        pieces = [part.strip() for part in scope.text.value.split("|")]
        assert strip(scope) == visible(" ".join(pieces))


# --- the embedded model ------------------------------------------------------------------------------------------


def test_the_text_it_opens_with_rises_and_falls(subject, shipped):
    scope = brevity_scope(subject, shipped)
    assert scope.text.value == TEXT and scope.emotion.value == "afraid"
    passage = scope._kept[1]
    assert passage.level[0] > 0.5 and passage.fallen is not None and "fallen to half" in scope.answer.value
    assert strip(scope) == TEXT.replace(" |", "")
    scope.text.value = f"{' '.join(NASTY)} {TEXT}"
    assert strip(scope) == visible(scope.text.value.replace(" |", ""))
