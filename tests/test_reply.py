"""The start of the reply: planted predictions are found, likeness in all directions isn't taken for emotion."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import tiny_model, tiny_text, tiny_tokenizer

import emolab as el
from emolab.experiments import reply as module
from emolab.experiments.reply import (
    BEYOND,
    INSIDE,
    LAST,
    LATE,
    MESSAGE,
    REPLY,
    SAME,
    START,
    WINDOWS,
    _correlation,
    _places,
    _statistics,
    reply_emotion,
)

HEADER = "waited alone"
TARGETS = (REPLY, LATE, *WINDOWS.values())


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "DRAWS", 300)
    monkeypatch.setattr(module, "SHUFFLES", 200)
    monkeypatch.setattr(module, "TURNS", 60)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def talker(tiny) -> el.Subject:
    """The tiny model with a chat template whose header for the reply is two words."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] }} {% endfor %}{% if add_generation_prompt %}" + HEADER + " {% endif %}"
    )
    return el.load((tiny_model(), tokenizer))


def spread_of(vectors) -> np.ndarray:
    """[d_model, d_model] makes standard normal rows vary as stories of one emotion do."""
    return np.linalg.cholesky(module.fit(vectors.evidence.train).metric).T


def hidden_with(rng, signal, weights, spread, noise=1.0):
    """[message, d_model] for each place: its weight times a signal [message, d_model], plus noise of its own."""
    return {
        place: weights.get(place, 0) * signal + noise * rng.standard_normal(signal.shape) @ spread
        for place in (MESSAGE, LAST, START, INSIDE, *TARGETS)
    }


def test_a_planted_prediction_is_found(tiny_vectors, rng):
    layer = tiny_vectors.evidence.layer
    along = tiny_vectors.vectors[:, tiny_vectors.row(layer)].astype(float)
    spread = spread_of(tiny_vectors)
    length = np.linalg.norm(np.linalg.solve(spread.T, along.T), axis=0).mean()  # in sd of the noise
    signal = rng.standard_normal((60, 3)) @ along / length * 3
    hidden = hidden_with(rng, signal, dict.fromkeys((START, *TARGETS), 1.0), spread)
    table, gains, path, scores = _statistics(tiny_vectors, hidden, layer, rng)
    assert table.r[START, REPLY] > 0.8 > 0.6 > table.r[LAST, REPLY] and path.empty
    assert table.low[START, REPLY] > table.turned_95[START, REPLY]
    for target in (REPLY, LATE, SAME, BEYOND):
        assert gains.low[target] > 0 and gains.r[target] > gains.turned_95[target]
    assert scores[START].shape == (60, 3)


def test_likeness_in_all_directions_is_no_emotion(tiny_vectors, rng):
    """The start is like the reply because it is near, whatever is read: real, but not beyond maps turned at random."""
    layer = tiny_vectors.evidence.layer
    spread = spread_of(tiny_vectors)
    beyond = []
    for _ in range(5):
        signal = rng.standard_normal((60, 32)) @ spread
        hidden = hidden_with(rng, signal, dict.fromkeys((START, *TARGETS), 1.0), spread, noise=0.5)
        table, gains, *_ = _statistics(tiny_vectors, hidden, layer, rng)
        assert table.low[START, REPLY] > 0 and table.r[START, REPLY] > table.shuffled_95[START, REPLY]
        beyond.append(gains.r[SAME] > gains.turned_95[SAME])
    assert sum(beyond) <= 2


def test_correlations_are_those_of_numpy(rng):
    a, b = rng.standard_normal((2, 30, 4))
    b += 0.5 * a + np.array([5, 0, -5, 1])  # means of emotions must not count
    a[7] = np.nan
    whole = np.delete(np.arange(30), 7)
    x, y = (z[whole] - z[whole].mean(0) for z in (a, b))
    expected = np.corrcoef(x.ravel(), y.ravel())[0, 1]
    assert _correlation(a, b, np.full((1, 30), 1 / 30)) == pytest.approx(expected)
    twice = np.repeat(whole, 2)[: 2 * 10]
    x, y = (z[twice] - z[twice].mean(0) for z in (a, b))
    weights = np.bincount(twice, minlength=30)[None] / 20
    assert _correlation(a, b, weights) == pytest.approx(np.corrcoef(x.ravel(), y.ravel())[0, 1])


def test_places_are_the_tokens_they_should_be(talker):
    message, reply = tiny_text(1, words=25), tiny_text(2, words=20)
    prompt = talker.chat(message)
    places = _places(talker, message, prompt, reply, 2)
    hidden = el.read(talker, prompt + reply, [2])[0]
    assert len(hidden) == 25 + 2 + 20
    expected = {
        MESSAGE: hidden[1:25].mean(0),
        LAST: hidden[24],
        START: hidden[26],
        REPLY: hidden[27:].mean(0),
        LATE: hidden[37:].mean(0),
        WINDOWS[LAST]: hidden[27:45].mean(0),  # 3 to 20 tokens behind 24
        WINDOWS[START]: hidden[29:47].mean(0),  # 3 to 20 tokens behind 26
        INSIDE: hidden[4],
        WINDOWS[INSIDE]: hidden[7:25].mean(0),  # 3 to 20 tokens behind 4
        "+1 'waited'": hidden[25],
    }
    for name, value in expected.items():
        np.testing.assert_allclose(places[name if name in places else name.replace("'w", "' w")], value, atol=1e-5)
    assert _places(talker, message, prompt, tiny_text(2, words=9), 2) is None


def test_a_random_model_does_not_replicate(talker, tiny_vectors):
    vectors = replace(tiny_vectors, info=tiny_vectors.info | {"weights": talker.weight_sample})
    messages = [tiny_text(seed, words=24) for seed in range(200, 230)]
    found = reply_emotion(talker, vectors, messages, tokens=20)
    assert len(found.messages) == len(found.replies) >= 8
    assert "replicates" not in [claim.verdict for claim in found.claims()]
    assert len(found.path) == 3 and found.path.index[0] == LAST
    assert len(found.figure().axes) == 2 and "random maps" in found.verdict()


def test_a_model_without_a_template(tiny, tiny_vectors):
    found = reply_emotion(tiny, tiny_vectors, [tiny_text(seed, words=24) for seed in range(12)], tokens=18)
    assert found.path.empty and found.advantages.r[SAME] == pytest.approx(0)  # no token between message and reply
    assert found.claims()[1].verdict == "does not replicate"


def test_the_embedded_model_answers_and_the_message_shows_in_the_reply(subject, shipped):
    messages = [row["text"] for row in el.prompts("scenarios")][::6]
    found = reply_emotion(subject, shipped, messages, tokens=18)
    table = found.table()
    assert len(found.messages) >= 10 and table.r[MESSAGE, REPLY] > table.shuffled_95[MESSAGE, REPLY]
    assert found.path.index[-1].startswith("+6") and found.scores[START].shape[1] == len(shipped)
    np.testing.assert_allclose(found.path.r.iloc[-1], table.r[START, LATE])


def test_what_it_needs(subject, shipped, tiny, tiny_vectors):
    with pytest.raises(el.EmolabError, match="evidence"):
        reply_emotion(subject, shipped[["afraid", "calm"]])
    with pytest.raises(el.EmolabError, match="too short"):
        reply_emotion(tiny, tiny_vectors, ["the door"], tokens=5)
    with pytest.raises(el.EmolabError, match="8 are needed"):
        reply_emotion(tiny, tiny_vectors, ["the door was dark"], tokens=16)
