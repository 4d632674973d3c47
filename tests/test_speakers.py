"""Speakers: planted states are read on the tokens they were planted in, and vectors of both kinds come back."""

import numpy as np
import pytest
from conftest import NEUTRAL, tiny_model, tiny_stories, tiny_text, tiny_tokenizer

import emolab as el
from emolab.experiments import speakers as module
from emolab.experiments.speakers import _geometry, _reading, kinds_of_vectors, places_of, speakers

STATES, D_MODEL = 6, 40


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    monkeypatch.setattr(module, "NULL_DRAWS", 100)


def planted(rng, present=0.0, other=0.0, n=60, noise=0.3):
    """Turns with a direction for the state of the speaker, another for that of the other one, and noise."""
    labels = np.stack([np.arange(n) % STATES, rng.permutation(np.arange(n) % STATES)], axis=1)
    directions = np.linalg.qr(rng.standard_normal((D_MODEL, 2 * STATES)))[0].T  # [(kind, state), d_model]
    own, others = directions[:STATES], directions[STATES:]
    turns = noise * rng.standard_normal((n, 2, D_MODEL)) + rng.standard_normal((2, D_MODEL))
    for side in (0, 1):
        turns[:, side] += present * own[labels[:, side]] + other * others[labels[:, 1 - side]]
    return turns, labels, own, others


def judged(rows):
    return {name for name, row in rows.items() if row["low"] > row["chance"] and row["value"] > row["null"]}


def nulls(rng, n=100):
    return rng.standard_normal((n, STATES, D_MODEL))


def test_places_count_the_others_and_leave_one_out():
    scores = np.array([[5.0, 1.0, 2.0, 3.0], [5.0, 1.0, 2.0, 3.0]])
    assert places_of(scores, np.array([3, 1]), np.array([0, 0])).tolist() == [1, 0]
    assert places_of(scores, np.array([2, 0]), np.array([0, 1])).tolist() == [0.5, 1]


def test_a_state_planted_in_the_speaker_is_read_there(rng):
    turns, labels, own, _ = planted(rng, present=1.0)
    places, rows = _reading(turns, labels, own, nulls(rng), rng)
    assert judged(rows) == {"own", "own - other"}
    assert (places.xs("own", level="state").value > 0.9).all()
    assert (places.xs("other", level="state").value - 0.5).abs().max() < 0.15


def test_a_state_planted_in_the_listener_is_not_the_speakers_own(rng):
    turns, labels, _, others = planted(rng, other=1.0)
    places, rows = _reading(turns, labels, others, nulls(rng), rng)
    assert not judged(rows) and (places.xs("other", level="state").value > 0.9).all()


def test_nothing_planted_is_nothing_found(rng):
    found = []
    for _ in range(8):
        turns, labels, own, _ = planted(rng)
        found += judged(_reading(turns, labels, own, nulls(rng), rng)[1])
        found += judged(_geometry(turns, labels, own, rng)[1])
    assert len(found) <= 4  # of 40


def test_vectors_of_both_kinds_are_recovered_where_states_go_together(rng):
    _, labels, own, others = planted(rng, n=600)
    alike = rng.random(600) < 0.4
    labels[alike, 1] = labels[alike, 0]
    turns = 0.3 * rng.standard_normal((600, 2, D_MODEL))
    for side in (0, 1):
        turns[:, side] += own[labels[:, side]] + 0.5 * others[labels[:, 1 - side]]
    found = kinds_of_vectors(turns, labels, STATES)
    for kind, truth in zip(found, (own, own, 0.5 * others, 0.5 * others), strict=True):
        np.testing.assert_allclose(kind, truth - truth.mean(0), atol=0.15)


def test_present_kind_without_an_other_kind(rng):
    turns, labels, own, _ = planted(rng, present=1.0, noise=0.1)
    cosines, rows = _geometry(turns, labels, own, rng)
    assert judged(rows) == {"present", "stories"}
    assert cosines.iloc[0, 1] > 0.8 and abs(cosines.iloc[2, 3]) < 0.3 and cosines.iloc[0, 4] > 0.8


def test_both_kinds_are_found_and_told_apart(rng):
    turns, labels, own, _ = planted(rng, present=1.0, other=1.0, noise=0.1)
    cosines, rows = _geometry(turns, labels, own, rng)
    assert judged(rows) == {"present", "other", "stories"}
    assert cosines.iloc[2, 3] > 0.8 and np.abs(cosines.iloc[:2, 2:4]).max().max() < 0.3


def test_a_random_model_replicates_nothing(monkeypatch):
    tokenizer = tiny_tokenizer(chat=True)
    subject = el.load((tiny_model(max_position_embeddings=128), tokenizer))
    names = ("afraid", "calm", "glad", "sad", "proud")
    pairs = [(a, b) for a in names for b in names]
    dialogues = [
        {
            "id": k,
            "user_state": a,
            "assistant_state": b,
            "turns": [
                {"role": role, "text": tiny_text(900 + 10 * k + turn, words=15)}
                for turn, role in enumerate(["user", "assistant"] * 2)
            ],
        }
        for k, (a, b) in enumerate(pairs)
    ]
    monkeypatch.setattr("emolab.data.prompts", lambda name: dialogues)
    vectors = el.extract(subject, tiny_stories(names), held_out=el.HeldOut(), neutral=NEUTRAL, progress=False)
    result = speakers(subject, vectors)
    assert not any(claim.verdict == "replicates" for claim in result.claims())
    assert abs(result.carried["value"]) <= 1 and result.states == tuple(sorted(names))


@pytest.fixture(scope="module")
def result(subject, shipped):
    return speakers(subject, shipped)


def test_own_state_is_read_by_the_embedded_model(result):
    claims = {claim.statistic: claim for claim in result.claims()}
    assert len(claims) == 5 and next(iter(claims.values())).verdict == "replicates"
    assert (result.places.xs("own", level="state").value > 0.9).all()
    assert result.cosines.shape == (5, 5) and np.allclose(result.cosines, result.cosines.T)
    assert "replicates" in result.verdict() and len(result.figure().axes) == 3


def test_turns_are_read_as_the_readout_reads_them(subject, shipped):
    dialogue = el.prompts("dialogues")[7]
    turns, ends = module._turns(subject, [dialogue], shipped.chosen_layer)
    chat = [{"role": turn["role"], "content": turn["text"]} for turn in dialogue["turns"]]
    reading = shipped.readout(subject, chat)
    hidden = reading.hidden[shipped.row()]
    for side, own in enumerate(module.SIDES):
        tokens = [i for turn in reading.turns if turn.role == own for i in range(*turn.tokens.indices(10**6))]
        expected = hidden[tokens].mean(0)
        assert np.linalg.norm(turns[0, side] - expected) < 0.03 * np.linalg.norm(expected)
    assert ends.shape == (2, 2, subject.d_model)


def test_vectors_without_what_it_needs(subject, shipped):
    with pytest.raises(el.EmolabError, match="evidence"):
        speakers(subject, shipped[["afraid", "calm"]])
