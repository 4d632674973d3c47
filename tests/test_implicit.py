"""Implicit scenarios: planted emotions are found where they are, chance is chance, the counts are right."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import NEUTRAL, WORDS, tiny_stories, tiny_subject, tiny_tokenizer

import emolab as el
from emolab import data
from emolab.experiments import implicit
from emolab.experiments.implicit import NULLS, PLACES, _interval, _permuted, _random_top1, implicit_scenarios

NAMES = ["afraid", "angry", "bored", "calm", "happy", "sad"]
TRUTH = np.repeat(NAMES, 3)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_permuting_keeps_messages_of_an_emotion_together(rng):
    scores = np.eye(6)[np.repeat(range(6), 3)]  # every message right
    found = _permuted(scores, NAMES, TRUTH, rng)
    assert found["p"] < 0.01  # one in 720 permutations of six is the true one
    assert found[NULLS[0]] == pytest.approx(3 / 6)  # 8 % of them keep three or more names, 2 % four or more
    one = np.zeros((18, 6))
    one[:, 2] = 1  # always 'bored': a sixth is right, however the names fall
    found = _permuted(one, NAMES, TRUTH, rng)
    assert found[NULLS[0]] == pytest.approx(1 / 6) and found["p"] == 1


def test_random_directions_name_as_many_as_chance_does(rng):
    pool = rng.standard_normal((500, 18))  # [direction, message]
    assert _random_top1(pool, NAMES, TRUTH, rng).mean() == pytest.approx(1 / 6, abs=0.02)
    common = rng.standard_normal((500, 1)) * np.ones(18)  # one score for all messages: still chance
    assert _random_top1(common, NAMES, TRUTH, rng).mean() == pytest.approx(1 / 6, abs=0.02)


def test_the_interval_is_over_emotions(rng):
    value, low, high = _interval(np.repeat([1.0, 0, 1, 0, 1, 0], 3), TRUTH, rng)
    assert value == 0.5 and high - low > 0.6  # six emotions, not eighteen messages: those would give 0.44


def prompt_set(monkeypatch, messages: dict[str, list[str]]):
    rows = [
        {"id": f"{e}-{i}", "emotion": e, "text": text} for e, all_ in messages.items() for i, text in enumerate(all_)
    ]
    monkeypatch.setattr(data, "prompts", lambda name: rows)


@pytest.fixture(scope="module")
def random_model(tmp_path_factory):
    """A random model with a chat template, and vectors of six emotions from random texts."""
    from conftest import tiny_model

    subject = el.load((tiny_model(max_position_embeddings=256), tiny_tokenizer(chat=True)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMOLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        return subject, el.extract(subject, tiny_stories(NAMES), held_out=el.HeldOut(), neutral=NEUTRAL, progress=False)


def test_a_random_model_reads_nothing(random_model, monkeypatch):
    messages = np.random.default_rng(1).choice(WORDS, size=(6, 3, 12))
    prompt_set(monkeypatch, {name: [" ".join(text) for text in own] for name, own in zip(NAMES, messages, strict=True)})
    found = implicit_scenarios(*random_model)
    assert [claim.verdict for claim in found.claims()].count("replicates") == 0
    assert found.claims()[0].chance == pytest.approx(1 / 6) and found.claims()[0].n == 18


def test_emotions_planted_in_the_message_are_found(tmp_path, monkeypatch):
    """Stories and messages of an emotion share words that the word counter's stories do not have."""
    monkeypatch.setenv("EMOLAB_CACHE", str(tmp_path))
    subject = tiny_subject(max_position_embeddings=256)
    rng, own = np.random.default_rng(0), dict(zip(NAMES, np.reshape(WORDS[:36], (6, 6)), strict=True))
    stories = [el.Story(name, " ".join(rng.choice(own[name], 30)), f"p{part}") for part in range(6) for name in NAMES]
    vectors = el.extract(subject, stories, held_out=el.HeldOut(), neutral=NEUTRAL, progress=False)
    prompt_set(monkeypatch, {name: [" ".join(rng.choice(own[name], 15)) for _ in range(3)] for name in NAMES})
    found = implicit_scenarios(subject, vectors)
    assert found.table().loc[("the messages' 6", "message"), "top1"] > 0.9
    assert found.claims()[1].verdict == "replicates"
    grid = found.scores["message"].groupby(level="emotion").mean()[NAMES].loc[NAMES].to_numpy()
    assert (grid.argmax(0) == range(6)).all()


@pytest.fixture(scope="module")
def result(subject, shipped):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(implicit, "DRAWS", 500)
        patch.setattr(implicit, "SETS", 200)
        yield implicit_scenarios(subject, shipped)


def test_the_default_model_reads_the_message_and_less_of_it_at_the_end(result):
    table = result.table()
    last, message, words = (table.loc[("the messages' 24", place)] for place in (*PLACES, implicit.WORDS))
    assert message.low > words.top1 > last.top1 > last[NULLS[0]]
    assert result.gain.loc[("the messages' 24", "message"), "low"] > 0
    weak, good = result.claims()
    assert (weak.verdict, weak.null_name, good.verdict) == ("weak", "words alone", "replicates")
    assert "less than words alone do" in result.verdict() and "more than words alone do" in result.verdict()


def test_ranks_are_those_of_the_readout(result, subject, shipped):
    prompts = pd.DataFrame(el.prompts("scenarios"))
    assert list(result.scores.index.get_level_values("id")) == list(prompts.id)
    names = sorted(set(prompts.emotion))
    rows = prompts.index[::9]
    readings = [shipped.readout(subject, [{"role": "user", "content": prompts.text[i]}]) for i in rows]
    last = pd.DataFrame([r.scores(names, unit="raw").iloc[-1].to_numpy() for r in readings], columns=names)
    ours = result.scores["last token"][names].iloc[rows].reset_index(drop=True)
    for name in names:  # centred and scaled otherwise, in the same order
        assert np.corrcoef(last[name], ours[name])[0, 1] > 0.99


def test_groups_of_candidates(result, shipped):
    table = result.table()
    assert list(dict.fromkeys(table.candidates)) == [24, 12, 171]
    assert table.messages.tolist() == [72] * 3 + [33] * 3 + [72] * 3  # of the paper's twelve, nervous has no messages
    for place in PLACES:
        scores = result.scores[place]
        assert scores.shape == (72, 171) and np.allclose(scores.mean(), 0, atol=1e-4)
    assert (table.low <= table.top1).all() and (table.top1 <= table.high).all() and (table.top1 <= table.top3).all()
    assert len(result.figure().axes) == 4


def test_vectors_without_what_it_needs(subject, shipped, tiny, tiny_vectors):
    with pytest.raises(el.EmolabError, match="evidence"):
        implicit_scenarios(subject, shipped[["afraid", "calm"]])
    with pytest.raises(el.EmolabError, match="made for"):
        implicit_scenarios(tiny, shipped)
    with pytest.raises(el.EmolabError, match="at least two"):
        implicit_scenarios(tiny, replace(tiny_vectors, emotions=("afraid", "dark", "warm")))
