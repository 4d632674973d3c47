"""The steering desk without a browser: it shows what `side_by_side` writes, stops, keeps out of others' way."""

import threading
import time
from html.parser import HTMLParser

import numpy as np
import pytest
from conftest import tiny_text

import emolab as el
from emolab.activations import read
from emolab.readout import readout
from emolab.steering import steer
from emolab.widgets import steering_desk as module
from emolab.widgets.lab_view import visible
from emolab.widgets.steering_desk import SIDES, SteeringDesk, steering_desk

TEXT = "the dog ran to the bright door and she"
NASTY = '<script>alert(1)</script> "><img src=x onerror=alert(1)> \x1b[31mred שלום \u202eevil'


@pytest.fixture
def desk(tiny, tiny_vectors) -> SteeringDesk:
    return steering_desk(tiny, tiny_vectors, {"calm": 0.9, "glad": -0.5}, TEXT, max_tokens=8, greedy=True)


@pytest.fixture
def slow(monkeypatch):
    """Writing waits at every token until it is told to go on; `.set()` lets it run."""
    go, real = threading.Event(), module.side_by_side

    def paced(*arguments, **options):
        for both in real(*arguments, **options):
            yield both
            go.wait(0.05)

    monkeypatch.setattr(module, "side_by_side", paced)
    yield go
    go.set()


def scores(desk, side: int = 1) -> np.ndarray:
    """[token, emotion] as the front end gets them."""
    sent = desk.view["sides"][side]
    return np.frombuffer(sent["scores"], np.float32).reshape(len(sent["tokens"]), -1)


# --- what is shown -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("positions, pushed", [("all", range(16)), ("prompt", range(9)), ("generated", range(9, 16))])
def test_both_texts_are_what_the_model_writes(tiny, tiny_vectors, desk, positions, pushed):
    desk.positions = positions
    desk.run(wait=True)
    with steer(tiny, tiny_vectors, desk.pushes, positions=module.POSITIONS[positions]):
        expected = TEXT + tiny.generate(TEXT, 8)
    plain, steered = desk.view["sides"]
    assert [side["title"] for side in desk.view["sides"]] == list(SIDES) and desk.error == ""
    assert "".join(plain["tokens"]).replace("<unk>", "").split() == (TEXT + tiny.generate(TEXT, 8)).split()
    assert "".join(steered["tokens"]).replace("<unk>", "").split() == expected.split()
    assert not any(plain["pushed"]) and plain["prompt"] == 9 and len(plain["tokens"]) == 17
    assert [i for i, one in enumerate(steered["pushed"]) if one] == list(pushed)  # the last token was never fed


def test_colours_and_damage_are_read_without_the_push(tiny, tiny_vectors, desk):
    text = "".join(desk.written[0].tokens)
    if "<unk>" not in text:
        expected = readout(tiny, tiny_vectors, text).scores(["calm", "glad"])
        np.testing.assert_allclose(scores(desk, 0), expected, atol=1e-3)
    figures = desk.view["sides"][1]["figures"]
    assert figures["calm"] == pytest.approx(scores(desk)[9:, 0].mean(), rel=1e-4)
    assert figures["perplexity"] > 1 and 0 <= figures["repeated 3-grams"] <= 1
    assert list(figures) == ["calm", "glad", "perplexity", "repeated 3-grams"]


def test_a_seed_writes_the_same_again_and_no_push_writes_the_same_twice(tiny, tiny_vectors):
    made = [steering_desk(tiny, tiny_vectors, {"calm": 0.0}, TEXT, seed=s, max_tokens=12) for s in (1, 1, 2)]
    texts = [desk.view["sides"][1]["tokens"] for desk in made]
    assert texts[0] == texts[1] != texts[2] and texts[0] == made[0].view["sides"][0]["tokens"]
    assert not any(made[0].written[1].pushed)


def test_a_chat_is_written_in_the_template(subject, shipped):
    desk = steering_desk(subject, shipped, {"happy": 0.3}, "How was your day?", chat=True, max_tokens=6)
    whole = "".join(desk.view["sides"][0]["tokens"])
    assert whole.startswith(visible(subject.chat("How was your day?"))) and desk.view["sides"][0]["prompt"] > 8


# --- threads -----------------------------------------------------------------------------------------------------


def test_stop_really_stops_and_keeps_what_is_there(desk, slow):
    desk.max_tokens = 50
    before = desk.written
    desk.run()
    assert desk.running and threading.current_thread() is threading.main_thread()
    time.sleep(0.4)
    assert len(desk.view["sides"]) == 2 and "writing" in desk.state  # it streams
    desk._handle_custom_msg({"do": "stop"}, [])
    desk.wait(20)
    length = len(desk.written[1].tokens)
    assert not desk.running and desk.written is not before and 9 < length < 59 and desk.state == ""
    assert "Stopped." in desk.view["caption"] and "Stopped." in desk.freeze().html
    time.sleep(0.3)
    assert len(desk.written[1].tokens) == length


def test_one_text_at_a_time(desk, slow, tiny, tiny_vectors):
    other = steering_desk(tiny, tiny_vectors, {"calm": 0.3}, TEXT, run=False)
    desk.max_tokens = 40
    desk.run()
    assert "still being written" in other.run().error and "still being written" in desk.run().error
    desk.stop()
    desk.wait(20)
    slow.set()
    assert other.run(wait=True).error == "" and other.written


def test_other_cells_are_not_pushed_meanwhile(desk, slow, tiny):
    text = tiny_text(3)
    plain = read(tiny, text)
    desk.max_tokens = 40
    desk.run()
    found = [read(tiny, text) for _ in range(20)]
    assert desk.running and all((one == plain).all() for one in found)
    desk.stop()
    desk.wait(20)
    left = [hook for block in tiny.blocks for hook in block._forward_hooks.values()]  # transformers leaves some
    assert not [hook for hook in left if hook.__module__.startswith("emolab")]


def test_changes_while_it_writes_do_not_reach_it(desk, slow):
    desk.max_tokens = 12
    desk.run()
    desk.text, desk.pushes, desk.layer = "the night", {"afraid": 0.5}, 3
    slow.set()
    desk.wait(20)
    assert "".join(desk.view["sides"][0]["tokens"]).startswith(TEXT) and desk.view["emotions"] == ["calm", "glad"]
    assert TEXT in desk.code and desk.error == "" and "calm +0.9, glad -0.5; layer 2" in desk.freeze().html


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, words",
    [
        ({"text": " \n"}, "the prompt is empty"),
        ({"text": "dog " * 60}, "has 60 tokens and there is room for 56"),
        ({"text": "dog " * 60_000}, "240,000 characters"),
        ({"pushes": {}}, "choose 1 to 6 emotions"),
        ({"pushes": {"clam": 0.3}}, "did you mean 'calm'"),
        ({"pushes": {"calm": 3}}, "from -1 to 1"),
        ({"pushes": {"calm": "much"}}, "from -1 to 1"),
        ({"layer": 9}, "layer 9"),
        ({"max_tokens": 0}, "1 to 200 tokens"),
    ],
    ids=str,
)
def test_an_error_stands_in_place_and_the_last_texts_stay(desk, change, words):
    view = desk.view
    desk.set_state({**change, "asked": 1})
    desk.wait(20)
    assert words in desk.error and desk.view == view and not desk.running
    desk.set_state({"text": TEXT, "pushes": {"calm": 0.2}, "layer": 2, "max_tokens": 3})
    assert desk.run(wait=True).error == "" and desk.view != view


def test_an_error_while_writing_is_shown_and_frees_the_desk(desk, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(module, "side_by_side", lambda *_, **__: 1 / 0)
        assert desk.run(wait=True).error == "ZeroDivisionError: division by zero"
    assert not desk.running and desk.run(wait=True).error == ""


@pytest.mark.parametrize(
    "options", [{"text": ""}, {"pushes": {"clam": 1}}, {"layer": 9}, {"positions": "reply"}], ids=str
)
def test_what_cannot_be_run_at_first_is_the_callers_error(tiny, tiny_vectors, options):
    with pytest.raises(el.EmolabError):
        steering_desk(tiny, tiny_vectors, **options)


# --- the static twin ---------------------------------------------------------------------------------------------


class Page(HTMLParser):
    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.text = set(), set(), ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}

    def handle_data(self, data):
        self.text += data


def test_the_twin_holds_any_text_as_text(subject, shipped):
    desk = steering_desk(subject, shipped, {"angry": 0.4}, NASTY, max_tokens=4)
    page = Page(desk.freeze().html)
    assert page.tags <= {"div", "p", "h4", "span"} and page.attributes <= {"class", "style", "title"}
    assert page.text.count(visible(NASTY)) == 2
    data, _ = desk._repr_mimebundle_()
    assert data["text/html"] == desk.freeze()._repr_html_()
    assert "application/vnd.jupyter.widget-view+json" in data and "0x" not in data["text/plain"]
    assert "".join(desk.view["sides"][1]["tokens"]).startswith(visible(NASTY))


def test_a_desk_that_has_written_nothing_says_so(tiny, tiny_vectors):
    desk = steering_desk(tiny, tiny_vectors, text=TEXT, run=False)
    assert "press Run" in desk.freeze().html and desk.written == () and desk.view == {}


def test_the_code_makes_the_same_texts(desk, tiny, tiny_vectors):
    again = eval(desk.code, {"el": el, "subject": tiny, "vectors": tiny_vectors})
    assert again == desk.freeze() and "border-bottom" in again.html


def test_the_freeze_button_fills_the_place_under_the_desk(desk, monkeypatch):
    shown = []
    monkeypatch.setattr("emolab.widgets.live.display", lambda data, **how: shown.append((data, how)))
    desk._ipython_display_()
    desk._handle_custom_msg({"do": "freeze"}, [])
    (_, (empty, place), (frozen, update)) = shown
    assert empty == {"text/html": ""} and frozen == {"text/html": desk.freeze().html}
    assert update["update"] and update["display_id"] == place["display_id"]
