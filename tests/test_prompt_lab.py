"""The prompt lab without a browser: what it shows is the Readout, the model runs once a text, all text stays text."""

import re
from base64 import b64decode
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import counted
from hypothesis import given, settings
from hypothesis import strategies as st

import emolab as el
from emolab.widgets import lab_view
from emolab.widgets.lab_view import Look, Side, View, visible
from emolab.widgets.prompt_lab import PRESETS, PromptLab, prompt_lab
from emolab.widgets.twin import twin

TEXT = "the dog ran to the bright door and she waited alone"
OTHER = "the dog sat in the bright door and she waited alone"
CHAT = [{"role": "system", "content": "the night"}, {"role": "user", "content": TEXT}]
NASTY = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</textarea></div><b onmouseover='x()'>&amp;",
    "\x1b[31mred\x1b[0m \x07\x00",
    "שלום עולם \u202eevil\u202c",
    "zero\u200bwidth\ufeff",
    "e\u0301 👩\u200d👩\u200d👧 日本",
]


@pytest.fixture
def lab(tiny, tiny_vectors) -> PromptLab:
    return prompt_lab(tiny, tiny_vectors, TEXT, emotions=["calm", "glad"])


@pytest.fixture
def forwards(tiny):
    with counted(tiny) as ran:
        yield ran


def scores(lab: PromptLab, side: int = 0) -> np.ndarray:
    """[token, emotion] as the front end gets them."""
    sent = lab.view["sides"][side]
    return np.frombuffer(sent["scores"], np.float32).reshape(len(sent["tokens"]), -1)


# --- what is shown is the readout --------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [TEXT, OTHER, "she laughed"])
def test_a_text_is_scored_as_the_readout_does(tiny, tiny_vectors, lab, text):
    lab.text = text
    expected = tiny_vectors.readout(tiny, text)
    assert "".join(lab.view["sides"][0]["tokens"]) == text and lab.error == ""
    np.testing.assert_allclose(scores(lab), expected.scores(["calm", "glad"]), rtol=1e-4)


@pytest.mark.parametrize("view", [{"layer": 2}, {"unit": "cosine"}, {"metric": "vector"}, {"layer": 4, "unit": "raw"}])
def test_layer_metric_and_unit(tiny, tiny_vectors, lab, view):
    lab.set_trait("emotions", ["glad", "afraid"])
    for name, value in view.items():
        setattr(lab, name, value)
    expected = tiny_vectors.readout(tiny, TEXT).scores(["glad", "afraid"], **view)
    np.testing.assert_allclose(scores(lab), expected, rtol=1e-3, atol=1e-5)


def test_ranks_and_highest(tiny, tiny_vectors, lab):
    table = tiny_vectors.readout(tiny, TEXT).scores()
    sent = lab.view["sides"][0]
    ranks = np.frombuffer(sent["ranks"], np.uint16).reshape(-1, 2)
    np.testing.assert_array_equal(ranks[1:], table.rank(axis=1, ascending=False)[["calm", "glad"]][1:])
    assert [name for name, _ in sent["last"]] == list(table.iloc[-1].nlargest(10).index)
    assert [name for name, _ in sent["top"]] == list(table.mean().nlargest(10).index)


def test_a_chat_is_read_in_its_template_and_says_who_speaks(tiny, tiny_vectors, lab):
    lab.set_state({"chat": True, "turns": CHAT})
    sent = lab.view["sides"][0]
    assert sent["roles"].count("user") == len(TEXT.split()) and sent["roles"].count("system") == 2
    np.testing.assert_allclose(scores(lab), tiny_vectors.readout(tiny, CHAT).scores(["calm", "glad"]), rtol=1e-4)
    assert prompt_lab(tiny, tiny_vectors, CHAT).view["sides"][0]["tokens"] == sent["tokens"]


def test_two_prompts_and_their_difference(tiny, tiny_vectors, lab):
    lab.set_state({"mode": "compare", "other": OTHER})
    one, two = (tiny_vectors.readout(tiny, text) for text in (TEXT, OTHER))
    table = one.compare(two, ["calm", "glad"])
    sent = np.frombuffer(lab.view["difference"]["scores"], np.float32).reshape(-1, 2)
    np.testing.assert_allclose(sent, table.xs("difference", axis=1, level=1), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(scores(lab, 1), two.scores(["calm", "glad"]), rtol=1e-4)
    assert len(lab.view["sides"]) == 2 and [readout.text for readout in lab.readouts] == [TEXT, OTHER]


def test_a_sweep_reads_the_last_token_for_each_x(tiny, tiny_vectors):
    lab = prompt_lab(tiny, tiny_vectors, template="the dog {x} the door", x=[1, 2.5], emotions=["glad"])
    sent = lab.view["sweep"]
    expected = [tiny_vectors.readout(tiny, f"the dog {x} the door").scores("glad").iloc[-1, 0] for x in ("1", "2.5")]
    assert sent["labels"] == ["1", "2.5"] and sent["x"] == [1, 2.5]
    np.testing.assert_allclose(np.frombuffer(sent["scores"], np.float32), expected, rtol=1e-4)


# --- one forward pass a text -------------------------------------------------------------------------------------


def test_only_new_texts_run_the_model(tiny, tiny_vectors, forwards):
    lab = prompt_lab(tiny, tiny_vectors, TEXT)
    assert len(forwards) == 1
    lab.layer, lab.unit, lab.metric, lab.emotions, lab.shown = 1, "raw", "vector", ["glad", "calm"], "calm"
    assert len(forwards) == 1
    lab.set_state({"mode": "compare", "other": OTHER})
    assert len(forwards) == 2
    lab.set_state({"mode": "sweep", "sweep": {"template": "the {x} dog", "x": "1, 2, 3"}})
    assert len(forwards) == 5
    lab.layer, lab.unit = 2, "sd"
    lab.set_state({"mode": "one"})
    assert len(forwards) == 5


def test_old_readouts_are_dropped_but_not_those_on_display(tiny, tiny_vectors, monkeypatch, forwards):
    monkeypatch.setattr("emolab.widgets.prompt_lab.KEPT_BYTES", 1)
    lab = prompt_lab(tiny, tiny_vectors, TEXT, OTHER)
    assert len(lab._kept) == 2
    lab.set_state({"mode": "one", "text": "the dog"})
    assert len(lab._kept) == 1
    lab.layer = 1
    assert len(forwards) == 3


def test_changes_that_come_together_are_answered_once(lab, monkeypatch):
    answers = []
    monkeypatch.setattr(lab, "_show", lambda: answers.append(1))
    lab.set_state({"text": OTHER, "layer": 2, "unit": "raw", "serial": 7})
    assert len(answers) == 1 and lab.done == 7


# --- errors in place ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, message",
    [
        ({"text": " \n"}, "the text is empty"),
        ({"text": "dog " * 70}, r"has 70 tokens and the lab shows at most 64: cut 6 of them"),
        ({"text": "<b>" * 200_000}, "600,000 characters"),
        ({"chat": True, "turns": []}, "a chat is a list"),
        ({"chat": True, "turns": [{"role": "user", "content": " "}]}, "the chat is empty"),
        ({"mode": "compare", "other": ""}, "B: the text is empty"),
        ({"emotions": ["clam"]}, "did you mean 'calm'"),
        ({"emotions": []}, "choose 1 to 8 emotions: 0 are chosen"),
        ({"layer": 9}, "layer 9 is not in these vectors"),
        ({"unit": "sds"}, "unknown unit"),
        ({"metric": "prob"}, "unknown metric"),
        ({"mode": "sweep", "sweep": {"template": "the dog", "x": "1, 2"}}, r"the template has no slots \{x\}"),
        ({"mode": "sweep", "sweep": {"template": "{x} and {x}", "x": "1, 2"}}, "has 2 slots"),
        ({"mode": "sweep", "sweep": {"template": "the {x}", "x": "1, two"}}, "'two' among the values"),
        ({"mode": "sweep", "sweep": {"template": "the {x}", "x": "1, nan"}}, "'nan' among the values"),
        ({"mode": "sweep", "sweep": {"template": "the {x}", "x": "5"}}, "2 to 24 values of x, and here are 1"),
        ({"mode": "sweep", "sweep": {"template": "the {x}", "x": "5 " * 99}}, "and here are 99"),
        ({"mode": "sweep", "sweep": {}}, "values of x"),
    ],
    ids=str,
)
def test_an_error_stands_in_place_and_the_last_good_view_stays(lab, change, message):
    view, code = lab.view, lab.code
    lab.set_state({**change, "serial": 3})
    assert re.search(message, lab.error), lab.error
    assert (lab.view, lab.code, lab.done) == (view, code, 3)
    lab.set_state({"mode": "one", "chat": False, "text": OTHER, "emotions": ["glad"], "layer": 2, "unit": "sd"})
    lab.metric = "probe"
    assert lab.error == "" and lab.view["emotions"] == ["glad"]


def test_an_unforeseen_error_is_shown_too(lab, monkeypatch):
    monkeypatch.setattr(lab, "_show", lambda: 1 / 0)
    lab.text = OTHER
    assert lab.error == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize("arguments", [{"text": ""}, {"emotions": ["clam"]}, {"layer": 0}, {"template": "no slot"}])
def test_what_cannot_be_shown_at_first_is_the_callers_error(tiny, tiny_vectors, arguments):
    with pytest.raises(el.EmolabError):
        prompt_lab(tiny, tiny_vectors, **{"text": TEXT, **arguments})


# --- the static twin ---------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Tags, attributes, and the texts of the token strips."""

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.tokens, self.inside = set(), {}, [], False
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= dict(attributes)
        self.inside = tag == "span"
        if self.inside:
            self.tokens.append("")

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.tokens[-1] += data


def bare_view(tokens: list[str]) -> View:
    zeros = np.zeros((len(tokens), 1), np.float32)
    side = Side(
        "", tuple(tokens), ("",) * len(tokens), zeros, zeros.astype(np.uint16), (("calm", 0.1),), (("calm", 0.1),)
    )
    return View(Look(("calm",), 1, "probe", "sd"), (side,))


@settings(deadline=None)
@given(st.lists(st.text() | st.sampled_from(NASTY), min_size=1, max_size=6))
def test_the_twin_holds_any_text_as_text(tokens):
    page = Page(twin(bare_view(tokens), "calm"))
    assert page.tags <= {"div", "p", "h4", "span", "img"}
    assert set(page.attributes) <= {"class", "style", "title", "alt", "src"}
    kind, picture = page.attributes["src"].split(",")
    assert kind == "data:image/svg+xml;base64"
    drawn = ElementTree.fromstring(b64decode(picture))
    assert {node.tag.split("}")[1] for node in drawn.iter()} <= {"svg", "line", "polyline", "text"}
    assert "".join(page.tokens) == visible("".join(tokens))


@settings(deadline=None, max_examples=30)
@given(text=st.text(max_size=30) | st.sampled_from(NASTY))
def test_any_text_can_be_typed(tiny, tiny_vectors, text):
    lab = prompt_lab(tiny, tiny_vectors, TEXT)
    lab.text = text
    shown = TEXT if lab.error else text
    assert "".join(lab.view["sides"][0]["tokens"]) == visible(shown)
    assert "".join(Page(lab.freeze().html).tokens) == visible(shown)
    assert "<script" not in lab.freeze().html and eval(lab.code, {"el": FakeEl, "subject": 0, "vectors": 0}) == shown


class FakeEl:
    """`el.prompt_lab(...)` gives what has a `freeze` that gives the text back: does the code say the text?"""

    def __init__(self, text):
        self.text = text

    @classmethod
    def prompt_lab(cls, _subject, _vectors, text, **_view):
        return cls(text)

    def freeze(self):
        return self.text


@given(st.text())
def test_visible_is_one_for_one_and_hides_nothing(text):
    shown = visible(text)
    assert len(shown) == len(text) and visible(shown) == shown
    assert not any((ord(c) < 32 and c not in "\n\t") or c in "\u200b\u202e\ufeff\x7f\x9b" for c in shown)


def test_a_saved_notebook_holds_the_twin_beside_the_live_view(lab):
    data, _ = lab._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert data["text/html"] == lab.freeze()._repr_html_() and "0x" not in data["text/plain"]
    assert set(Page(data["text/html"]).tokens) == {*lab.view["sides"][0]["tokens"]}


@pytest.mark.parametrize(
    "arguments",
    [
        {"text": TEXT, "layer": 2, "unit": "cosine", "emotions": ["glad", "calm"], "shown": "calm"},
        {"text": TEXT, "other": OTHER},
        {"text": CHAT},
        {"text": TEXT, "chat": True},
        {"template": "the {x} dog", "x": "1, 50, 1000"},
        {"template": "the {x} dog", "x": [1, 2], "chat": True},
    ],
    ids=str,
)
def test_the_code_makes_the_same_figure(tiny, tiny_vectors, arguments, monkeypatch):
    monkeypatch.setitem(el._HOME, "prompt_lab", "widgets.prompt_lab")
    lab = prompt_lab(tiny, tiny_vectors, **arguments)
    again = eval(lab.code, {"el": el, "subject": tiny, "vectors": tiny_vectors})
    assert again == lab.freeze()


def test_the_freeze_button_fills_the_place_under_the_lab(lab, monkeypatch):
    shown = []
    monkeypatch.setattr("emolab.widgets.live.display", lambda data, **how: shown.append((data, how)))
    lab._ipython_display_()
    lab._handle_custom_msg({"do": "freeze"}, [])
    (_, (empty, place), (frozen, update)) = shown
    assert empty == {"text/html": ""} and frozen == {"text/html": lab.freeze().html}
    assert update["update"] and update["display_id"] == place["display_id"]


def test_a_token_without_company_is_shown_without_scores(lab):
    lab.text = "dog"
    assert lab.error == "" and lab.view["sides"][0]["last"] == [] and "dog" in lab.freeze().html


# --- the embedded model ------------------------------------------------------------------------------------------


def test_presets_fit_and_read_as_they_should(subject, shipped):
    lab = prompt_lab(subject, shipped, emotions=["terrified"])
    means = {}
    for name, text in PRESETS.items():
        lab.text = text
        assert lab.error == "" and lab.text == text
        means[name] = np.nanmean(scores(lab))
    assert means["danger"] > means["safety"]
    assert lab_view.SLOT in lab.sweep["template"]
    lab.mode = "sweep"
    assert lab.error == ""


def test_nasty_texts_come_back_whole_from_the_embedded_model(subject, shipped):
    lab = prompt_lab(subject, shipped)
    for text in NASTY:
        lab.text = text
        assert lab.error == "" and "".join(lab.view["sides"][0]["tokens"]) == visible(text)
    lab.text = "<script>alert('paste')</script>" * 3500  # 100 kB
    assert "tokens and the lab shows at most 1,024" in lab.error
