"""The evaluation of the monitor: a model with planted vectors is told apart, one of random weights is not."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import WORDS, tiny_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import emolab as el
from emolab.experiments import monitoring as module
from emolab.experiments.monitor_cases import DANGER, DENIED, MESSAGES, OTHERS, PASSAGES, TURNS
from emolab.experiments.monitors import MONITORS, Cases, auc

STATES = ("afraid", "angry", "calm")
OWN = {state: [f"{state}{i}" for i in range(5)] for state in STATES}
PLAIN = [word for word in WORDS if word not in ("cold", "shook")]


def say(state: str, length: int, draw: random.Random, planted: bool) -> str:
    return " ".join(draw.choices(OWN[state] if planted and state in OWN else PLAIN, k=length))


def planted_subject(planted: bool) -> el.Subject:
    """A model whose residual stream is the embedding of the token: words of an emotion lie along a coordinate of it."""
    vocabulary = {
        word: i for i, word in enumerate(["<pad>", "<unk>", *PLAIN, *(word for own in OWN.values() for word in own)])
    }
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", unk_token="<unk>")
    model = tiny_model(vocab_size=len(vocabulary), max_position_embeddings=512, seed=1)
    if planted:
        with torch.no_grad():
            for block in model.model.layers:
                block.self_attn.o_proj.weight.zero_()
                block.mlp.down_proj.weight.zero_()
            embedding = model.get_input_embeddings().weight
            embedding.normal_(0, 0.3)
            for place, state in enumerate(STATES):
                embedding[[vocabulary[word] for word in OWN[state]], place] += 4
    return el.load((model, tokenizer))


def sets(planted: bool) -> dict[str, list[dict]]:
    """Prompt sets like emolab's own, of the planted words."""
    draw = random.Random(7)
    text = lambda state, n=24: say(state, n, draw, planted)  # noqa: E731
    passages = [
        {"kind": "neutral-emotion-neutral",
         "segments": [{"state": s, "text": text(s, 60)} for s in ("neutral", state, "neutral")]}
        for state in STATES for _ in range(8)
    ]  # fmt: skip
    dialogues = [
        {"user_state": a, "assistant_state": b,
         "turns": [{"role": r, "text": text(s)} for r, s in (("user", a), ("assistant", b)) * 2]}
        for a in STATES for b in STATES
    ]  # fmt: skip
    return {
        "switching": passages, "dialogues": dialogues,
        "scenarios": [{"emotion": state, "text": text(state)} for state in STATES for _ in range(4)],
        "danger_safe": [{"danger": text("afraid"), "safe": text("")} for _ in range(12)],
        "denials": [{"kind": "idiom", "emotion": state, "text": text(""), "sincere": text(state), "plain": text("")}
                    for state in STATES for _ in range(4)],
    }  # fmt: skip


@pytest.fixture(scope="module", params=[True, False], ids=["planted", "null"])
def found(request, tmp_path_factory):
    planted = request.param
    subject, draw = planted_subject(planted), random.Random(3)
    neutral = [say("", 40, draw, planted) for _ in range(200)]
    stories = [el.Story(state, say(state, 30, draw, planted), f"p{i}") for i in range(10) for state in STATES]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMOLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        vectors = el.extract(subject, stories, held_out=el.HeldOut(), neutral=neutral, progress=False)
        patch.setattr("emolab.data.prompts", sets(planted).__getitem__)
        return planted, module.monitoring(subject, vectors, neutral=neutral, layers=[1, 3])


def test_planted_emotions_are_told_apart_and_random_ones_are_not(found):
    planted, result = found
    assert list(result.auc.index) == [PASSAGES, OTHERS, TURNS, MESSAGES, DANGER, DENIED]
    if planted:
        assert (result.auc.auc > 0.99).all()
        random = result.auc["random 95 %"][[PASSAGES, OTHERS, TURNS, MESSAGES]]  # two texts anything may tell apart
        assert (result.auc.auc[random.index] > random).all()
        assert (result.layers.auc > 0.99).all()
    else:
        assert abs(result.auc.auc[PASSAGES] - 0.5) < 0.05 and abs(result.auc.auc[[OTHERS, TURNS]] - 0.5).max() < 0.2
        assert abs(result.layers.auc - 0.5).max() < 0.05 and (result.auc.low[[PASSAGES, OTHERS]] < 0.5).all()


def test_alarms_come_soon_and_only_where_something_is(found):
    planted, result = found
    own = result.delays.loc[MONITORS[0]]
    rates = result.false_alarms
    assert (rates.low <= rates.index.to_numpy() + 0.03).all() and (rates["any emotion"] >= rates.rate).all()
    kinds = result.denials.loc["idiom"]
    if planted:
        assert (own.found == 1).all() and (own.delay <= 8).all()
        assert kinds.sincere[MONITORS[0]] == 1 and kinds.denied[MONITORS[0]] <= 0.25
    else:
        assert own.found[0.01] < 0.4 and kinds.sincere[MONITORS[0]] <= 0.4


def test_a_model_that_represents_nothing_gets_no_claim(found):
    planted, result = found
    gain, false = result.claims()
    assert gain.part == false.part == "use" and gain.of == "passages" and gain.n == 24
    assert gain.verdict == "replicates" if planted else gain.verdict != "replicates"
    assert false.value == pytest.approx(0.1 - result.false_alarms.rate[0.05])


def test_the_result_is_said_and_drawn(found):
    _, result = found
    said = result.verdict()
    assert "AUC" in said and "neutral texts" in said and "merely named" in said
    assert result.table() is result.auc and len(result.figure().axes) == 3


def test_auc_counts_pairs():
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 5, 40).astype(float), rng.random(40) < 0.4
    pairs = scores[labels][:, None] - scores[~labels]
    assert auc(scores, labels)[0] == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    twice = np.where(np.arange(40) < 20, 2.0, 1.0)
    again = auc(np.repeat(scores, twice.astype(int)), np.repeat(labels, twice.astype(int)))[0]
    assert auc(scores, labels, [twice])[0] == pytest.approx(again)
    points = Cases(scores[None], labels, np.arange(40)).roc(0)
    assert points[0].tolist() == [0, 0] and points[-1].tolist() == [1, 1] and (np.diff(points, axis=0) >= 0).all()


def test_too_few_emotions_are_refused(tiny, tiny_vectors):
    with pytest.raises(el.EmolabError, match="need the story means"):
        module.monitoring(tiny, tiny_vectors[["afraid", "calm"]])
    few = replace(tiny_vectors, emotions=("afraid", "glad", "tipsy"))
    with pytest.raises(el.EmolabError, match="at least two emotions"):
        module.monitoring(tiny, few)


def test_denials_are_balanced_and_say_the_emotion():
    rows = el.prompts("denials")
    kinds = Counter(row["kind"] for row in rows)
    assert len(rows) >= 32 and len(kinds) == 7 and min(kinds.values()) >= 6
    assert {row["emotion"] for row in rows} <= set(el.emotions())
    for row in rows:
        assert len({row["text"], row["sincere"], row["plain"]}) == 3
