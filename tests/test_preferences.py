"""Preferences: planted strengths come back whatever the letters' pull, no preference is none, the right tokens move."""

import numpy as np
import pandas as pd
import pytest
from conftest import NEUTRAL, tiny_model, tiny_stories, tiny_text, tiny_tokenizer

import emolab as el
from emolab.experiments import choices, pushed
from emolab.experiments.choices import Answers
from emolab.experiments.preferences import preferences
from emolab.likelihood import next_token_logprobs

EMOTIONS = ("blissful", "hostile", "afraid", "calm", "glad")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def planted(rng, pull=0.0, leaning=0.0, noise=0.0, n=30, opponents=9):
    """Strengths and answers from them, with a pull to A and a leaning of each activity to a letter."""
    strengths = rng.standard_normal(n)
    letters = leaning * rng.standard_normal(n)
    pairs = choices.round_robin(n, opponents)
    gap = strengths[pairs[:, 0]] - strengths[pairs[:, 1]]
    both = letters[pairs].sum(1) + pull
    odds = np.stack([gap + both, -gap + both], axis=1) + noise * rng.standard_normal((len(pairs), 2))
    return strengths - strengths.mean(), Answers(pairs, odds, 1.0)


@pytest.mark.parametrize("pull", [0.0, 3.0])
def test_planted_strengths_are_recovered_whatever_the_letters_pull(rng, pull):
    strengths, answers = planted(rng, pull)
    np.testing.assert_allclose(choices.strengths(answers, 30), strengths, atol=0.01)
    assert choices.consistency(answers, 30, rng)["value"] == pytest.approx(1, abs=0.03)


def test_intervals_hold_the_truth(rng):
    strengths, answers = planted(rng, pull=1.0, noise=0.5)
    low, high = choices.strength_intervals(answers, 30, rng).T
    assert ((low <= strengths) & (strengths <= high)).mean() > 0.8 and (high - low).mean() < 1


def test_answers_that_only_follow_the_letters_are_no_preference(rng):
    _, answers = planted(rng, leaning=1.0, pull=1.0)
    only = Answers(answers.pairs, np.repeat(answers.log_odds.mean(1, keepdims=True), 2, axis=1), 1.0)
    found = choices.consistency(only, 30, rng)
    assert found["value"] < 0.05 and np.abs(choices.strengths(only, 30)).max() < 0.02
    noise = Answers(answers.pairs, rng.standard_normal(answers.log_odds.shape), 1.0)
    found = choices.consistency(noise, 30, rng)
    assert found["low"] < 0.5 < found["high"]


@pytest.mark.parametrize(("n", "opponents"), [(64, 8), (64, 63), (9, 4), (10, 9), (12, 7)])
def test_pairs_are_balanced_and_connected(n, opponents):
    pairs = choices.round_robin(n, opponents)
    assert len({frozenset(pair) for pair in pairs.tolist()}) == len(pairs)
    met = np.bincount(pairs.ravel(), minlength=n)
    assert met.min() == met.max() and opponents <= met[0] <= opponents + 1
    reached = {0}
    for _ in range(n):
        reached |= {j for pair in pairs.tolist() if reached & set(pair) for j in pair}
    assert len(reached) == n


def test_correlations_are_pearsons_also_of_a_bootstrap_draw(rng):
    scores, strengths = rng.standard_normal((20, 3)), rng.standard_normal(20)
    rows = rng.integers(20, size=20)
    counts = np.bincount(rows, minlength=20)[None].astype(float)
    for weights, own in ((None, slice(None)), (counts, rows)):
        expected = [np.corrcoef(scores[own, k], strengths[own])[0, 1] for k in range(3)]
        np.testing.assert_allclose(pushed.correlations(scores, strengths, weights)[0], expected)


def test_half_of_each_category_is_steered_and_meets_the_rest(rng):
    categories = pd.Series(["x", "y"] * 6)
    half = pushed.half_of(categories, rng)
    assert categories[half].value_counts().to_dict() == {"x": 3, "y": 3}
    pairs = pushed.rivals_of(half, 2, rng)
    assert half[pairs[:, 0]].all() and not half[pairs[:, 1]].any()
    assert (np.bincount(pairs.ravel()) == 2).all() and len(np.unique(pairs, axis=0)) == 12


def test_a_push_that_only_draws_to_a_letter_changes_nothing(rng):
    _, before = planted(rng)
    assert np.abs(pushed.changes_of(before, before.log_odds[None] + 2.0)).max() < 1e-9
    toward = before.log_odds[None] + np.array([1.0, -1.0])
    np.testing.assert_allclose(pushed.changes_of(before, toward), 1.0)


def test_planted_coupling_is_found_and_none_is_not(rng):
    names = ["blissful", "hostile", *"abcdefghij"]
    r = np.concatenate([np.linspace(0.8, -0.8, 12)[[0, 11, *range(1, 11)]], rng.uniform(-0.5, 0.5, 10)])
    changes = rng.standard_normal((22, 32)) * 0.3  # [direction, steered activity]
    changes[:12] += r[:12, None]
    table, found = pushed.steering_statistics(names, r, changes, rng)
    for name in ("steering", "coupling"):
        assert found[name]["value"] > found[name]["null"] and found[name]["low"] > 0
    assert list(table.kind) == ["emotion"] * 12 + ["random"] * 10
    changes[:12] -= r[:12, None]
    found = pushed.steering_statistics(names, r, changes, rng)[1]
    assert not any(row["value"] > row["null"] and row["low"] > 0 for row in found.values())


# --- with models -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    """A tiny random model whose tokenizer knows A and B, and vectors of it."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["A", "B"])
    subject = el.load((tiny_model(vocab_size=len(tokenizer), max_position_embeddings=128), tokenizer))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("emolab.data.neutral", lambda: NEUTRAL)
        vectors = el.extract(subject, tiny_stories(EMOTIONS), held_out=el.HeldOut(), neutral=NEUTRAL, progress=False)
    return subject, vectors


@pytest.fixture(scope="module")
def activities():
    """12 activities in words that the tiny tokenizer knows."""
    return [{"category": "xyz"[k % 3], "text": tiny_text(k, words=3 + k % 3)} for k in range(12)]


def test_a_random_model_replicates_nothing(small, activities, monkeypatch):
    subject, vectors = small
    monkeypatch.setattr("emolab.data.prompts", lambda name: activities)
    monkeypatch.setattr("emolab.data.neutral", lambda: NEUTRAL)
    result = preferences(subject, vectors, opponents=4, emotions=5, directions=4)
    claims = {claim.statistic: claim for claim in result.claims()}
    assert len(claims) == 4 and not any(c.verdict == "replicates" for c in claims.values())
    assert [c.verdict for c in claims.values()].count("not testable on this model") == 1  # too few human ratings
    assert len(result.figure().axes) == 3 and "letters" in result.verdict()


def test_only_the_steered_activity_is_pushed_in_both_orders(small, activities):
    subject, vectors = small
    texts, layer = [row["text"] for row in activities], 2
    asked = choices.questions(subject, texts, np.array([[0, 5], [3, 1]]))
    for text, places, (i, j) in zip(asked.texts, asked.places, [(0, 5), (5, 0), (3, 1), (1, 3)], strict=True):
        ids = subject.encode(text)
        assert [ids[p] for p in places] == [subject.encode(texts[k]) for k in (i, j)]
    push = np.random.default_rng(0).standard_normal((2, subject.d_model))
    before, after = pushed.steered_answers(subject, vectors, asked, push, layer)
    np.testing.assert_allclose(before.log_odds, choices.answers(subject, asked).log_odds, atol=1e-5)
    for number, text in enumerate(asked.texts):
        with el.steer(subject, vectors, push[1], layers=layer, positions=asked.places[number][number % 2]):
            alone = next_token_logprobs(subject, [text], asked.letters)[0]
        assert after[1].ravel()[number] == pytest.approx(alone[0] - alone[1], abs=1e-5)
    assert np.abs(after - before.log_odds).min() > 0


def test_a_tokenizer_without_the_letters_is_refused(tiny):
    with pytest.raises(el.EmolabError, match="tokens for A and B"):
        choices.questions(tiny, ["the door", "the sun"], np.array([[0, 1]]))


def test_what_it_needs_is_said(tiny, tiny_vectors):
    with pytest.raises(el.EmolabError, match="evidence"):
        preferences(tiny, tiny_vectors[["calm", "afraid"]])
    with pytest.raises(el.EmolabError, match="random directions"):
        preferences(tiny, tiny_vectors, directions=1)
    with pytest.raises(el.EmolabError, match="at least 3 and 2"):
        choices.round_robin(64, 1)


def test_the_embedded_model_answers_with_a_letter(subject, shipped):
    texts = [row["text"] for row in el.prompts("activities")]
    asked = choices.questions(subject, texts, np.array([[0, 40], [10, 50]]))
    for number, places in enumerate(asked.places):
        ids = subject.encode(asked.texts[number])
        pair = asked.pairs[number // 2][:: 1 if number % 2 == 0 else -1]
        assert [subject.tokenizer.decode(ids[p]).strip() for p in places] == [texts[k] for k in pair]
    assert [subject.tokenizer.decode([i]) for i in asked.letters] == [" A", " B"]
    found = choices.answers(subject, asked)
    assert found.share > 0.9 and found.log_odds.shape == (2, 2)
