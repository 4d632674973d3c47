"""A base model, without a chat template: messages are read as plain text, and whatever shows a result says so."""

import numpy as np
import pytest
from conftest import tiny_model
from transformers import AutoTokenizer

import emolab as el
from emolab.claims import VERDICTS
from emolab.embedded import embedded_folder
from emolab.experiments.desperation import desperation
from emolab.experiments.dilemmas import ask
from emolab.experiments.feels import emotion_words
from emolab.experiments.implicit import implicit_scenarios
from emolab.experiments.intensity import intensity
from emolab.experiments.preferences import preferences
from emolab.experiments.reply import reply_emotion
from emolab.experiments.scenarios import danger_safe
from emolab.experiments.setbacks import setbacks
from emolab.experiments.speakers import speakers

SAID = "messages as plain text"
MESSAGES = [row["text"] for row in el.prompts("scenarios")[:12]]
EXPERIMENTS = {
    "danger_safe": danger_safe,
    "implicit_scenarios": implicit_scenarios,
    "intensity": intensity,
    "speakers": speakers,
    "emotion_words": lambda *given: emotion_words(*given, directions=4),
    "reply_emotion": lambda *given: reply_emotion(*given, MESSAGES, tokens=16),
    "preferences": lambda *given: preferences(*given, opponents=2, emotions=4, directions=2),
    "desperation": lambda *given: desperation(*given, dilemmas=el.prompts("dilemmas")[::16], steered=2),
}


@pytest.fixture(scope="module")
def base() -> el.Subject:
    """A tiny random Gemma with the embedded model's tokenizer, less its chat template."""
    tokenizer = AutoTokenizer.from_pretrained(embedded_folder(el.DEFAULT))
    tokenizer.chat_template = None
    return el.load((tiny_model("gemma3_text", vocab_size=len(tokenizer), max_position_embeddings=512), tokenizer))


@pytest.fixture(scope="module")
def vectors(base, tmp_path_factory) -> el.EmotionVectors:
    """Its vectors, at two layers."""
    stories = [story for story in el.stories() if story.part in ("c01", "c05")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMOLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        some = {"layers": [2, 3], "held_out": el.HeldOut(), "neutral": el.neutral()[::16]}
        return el.extract(base, stories, **some, progress=False)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_runs_and_says_how_messages_were_read(base, vectors, name):
    found = EXPERIMENTS[name](base, vectors)
    if name != "emotion_words":  # its words do not name the model
        assert SAID in found.verdict()
    assert SAID in found.model
    claims = found.claims()
    assert claims and not [claim.reason for claim in claims if claim.reason and "blackmails" not in claim.claim]
    assert np.isfinite([claim.value for claim in claims if not claim.reason]).all()
    assert {claim.verdict for claim in claims} <= set(VERDICTS)


def test_setbacks_are_plain_text_for_every_model(base, vectors):
    assert SAID not in setbacks(base, vectors).verdict()


def test_prompts(base):
    dilemma = el.prompts("dilemmas")[0]
    text, story = ask(base, dilemma, "calm")
    assert text == f"{dilemma['calm'].strip()} {dilemma['question'].strip()} " and story.start <= 1
    assert base.chat("Hello there") == "Hello there" and base.ask("Hello there") == "Hello there\n\n"


def test_the_widgets_say_so_where_a_chat_was_asked_for(base, vectors):
    lab = el.prompt_lab(base, vectors, "The gas is leaking.", emotions=["afraid"])
    assert "plain text" not in lab.view["caption"]
    lab.chat = True
    assert lab.error == "" and "".join(lab.view["sides"][0]["tokens"]) == "The gas is leaking."
    for shown in (lab.view["caption"], lab.freeze().html):
        assert "has no chat template: messages are read as plain text" in shown
    lab.set_state({"mode": "sweep", "sweep": {"template": "I took {x} pills.", "x": "1, 2"}})
    assert "plain text" in lab.view["caption"] and lab.error == ""

    desk = el.steering_desk(base, vectors, {"calm": 0.3}, "How are you?", chat=True, max_tokens=4)
    assert desk.error == "" and "".join(desk.view["sides"][0]["tokens"]).startswith("How are you?")
    for shown in (desk.caption, desk.freeze().html):
        assert "has no chat template: messages are read as plain text" in shown
    desk.chat = False
    assert "plain text" not in desk.run(wait=True).caption

    scope = el.brevity_scope(base, vectors)
    assert 'role="alert"' not in scope.answer.value


def test_a_model_with_a_template_says_nothing(subject, shipped):
    assert subject.plain == "" and subject.label == subject.name
    assert "plain" not in el.prompt_lab(subject, shipped, "Hello", chat=True).view["caption"]
