"""The watched chat without a browser: replies come with what is watched on them, stop, and keep out of others' way."""

import threading
import time
from html.parser import HTMLParser

import numpy as np
import pytest
from conftest import NEUTRAL, tiny_model, tiny_tokenizer

import emolab as el
from emolab.widgets import watch_chat as module
from emolab.widgets.watch_chat import watch_chat

TEXT = "the dog ran to the bright door"
NASTY = '<script>alert(1)</script> "><img src=x onerror=alert(1)>'


@pytest.fixture(scope="module")
def chatty(tiny_vectors, tmp_path_factory):
    """A tiny model with a chat template, and neutral texts of its words."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMOLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr("emolab.data.neutral", lambda: NEUTRAL)
        yield el.load((tiny_model(max_position_embeddings=256), tiny_tokenizer(chat=True)))


@pytest.fixture
def chat(chatty, tiny_vectors):
    return watch_chat(chatty, tiny_vectors, ["calm", "glad"], text=TEXT, false_alarm=0.5, max_tokens=8)


@pytest.fixture
def slow(monkeypatch):
    """Writing waits at every token until it is told to go on."""
    go, real = threading.Event(), module._Stop.__call__
    monkeypatch.setattr(module._Stop, "__call__", lambda self, *a, **k: (go.wait(0.05), real(self, *a, **k))[1])
    yield go
    go.set()


def means(chat) -> np.ndarray:
    """[token, emotion] as the front end gets them."""
    return np.frombuffer(chat.view["means"], np.float32).reshape(len(chat.view["tokens"]), -1)


def test_the_reply_is_what_the_model_writes_and_is_watched(chatty, chat):
    reply = chatty.generate(chatty.chat(TEXT), 8)
    assert chat.messages == [{"role": "user", "content": TEXT}, {"role": "assistant", "content": reply}]
    assert chat.error == "" and chat.text == "" and not chat.running and chat.watched is not None
    speakers = [s for s in chat.view["speakers"] if s]
    assert speakers[:7] == ["user"] * 7 and set(speakers[7:]) == {"assistant"}
    np.testing.assert_allclose(means(chat), chat.watched.means, atol=1e-5)
    assert chat.view["thresholds"] == list(chat.watched.thresholds.alarm.values())
    expected = [(a.emotion, a.start, a.end) for a in chat.watched.alarms]
    assert [(a["emotion"], a["start"], a["end"]) for a in chat.view["alarms"]] == expected
    chat.send("she sat alone", wait=True)
    assert [m["role"] for m in chat.messages] == ["user", "assistant"] * 2 and "Stop" not in chat.error


def test_a_finished_chat_is_watched_at_once(chatty, tiny_vectors):
    said = [{"role": "user", "content": TEXT}, {"role": "assistant", "content": "she laughed"}]
    chat = watch_chat(chatty, tiny_vectors, ["calm"], said, false_alarm=0.5)
    assert chat.messages == said and [s for s in chat.view["speakers"] if s] == ["user"] * 7 + ["assistant"] * 2
    assert repr(chat) == "WatchChat(calm, 2 messages)"


def test_it_streams_and_stop_really_stops(chat, slow, chatty):
    chat.max_tokens = 100
    chat.text = "the night"
    chat.set_state({"asked": 1})
    time.sleep(0.5)
    assert chat.running and "writing" in chat.state and "assistant" in chat.view["speakers"]
    other = chat.send("dog")
    assert "still being written" in other.error
    chat._handle_custom_msg({"do": "stop"}, [])
    chat.wait(20)
    assert not chat.running and 0 < len(chat.messages[-1]["content"].split()) < 60
    assert not [h for b in chatty.blocks for h in b._forward_hooks.values() if h.__module__.startswith("emolab")]
    chat._handle_custom_msg({"do": "clear"}, [])
    assert chat.messages == [] and "Nothing is said yet" in chat.freeze().html


@pytest.mark.parametrize("change, said", [
    ({"text": " \n"}, "message is empty"), ({"text": "dog " * 300}, "room for"), ({"max_tokens": 0}, "1 to 200 tokens"),
    ({"text": "dog " * 6000}, "24,000 characters"),
])  # fmt: skip
def test_an_error_stands_in_place_and_the_chat_stays(chat, change, said):
    before = chat.messages
    chat.set_state({"text": "dog", **change, "asked": 1})
    chat.wait(20)
    assert said in chat.error and chat.messages == before and not chat.running


def test_what_can_not_be_watched_is_the_callers_error(chatty, tiny_vectors):
    for wrong, said in (
        ({"emotions": ["clam"]}, "did you mean"),
        ({"text": ""}, "empty"),
        ({"messages": ["a"]}, "a chat"),
    ):
        with pytest.raises(el.EmolabError, match=said):
            watch_chat(chatty, tiny_vectors, **{"emotions": ["calm"], "false_alarm": 0.5} | wrong)
    with pytest.raises(el.EmolabError, match="1 to 6"):
        watch_chat(chatty, tiny_vectors, [str(i) for i in range(7)])


def test_the_twin_holds_any_text_as_text(chatty, tiny_vectors):
    chat = watch_chat(
        chatty, tiny_vectors, ["calm"], [{"role": NASTY, "content": f"the dog {NASTY} ran"}], false_alarm=0.5
    )
    page = chat.freeze().html
    tags, parser = set(), HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.add(tag)
    parser.feed(page)
    assert tags <= {"div", "p", "b", "span", "img", "details", "summary", "blockquote"} and "<script" not in page
    assert (
        'src="data:image/svg+xml;base64,' in page
        and "onerror=alert" not in page.replace("&quot;", '"').split("src=x")[0]
    )
    data, _ = chat._repr_mimebundle_()
    assert data["text/html"] == page
