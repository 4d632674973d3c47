"""Strength and words: a planted direction is found at the right strength, random weights get no verdict for it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import NEUTRAL, WORDS, tiny_model, tiny_stories, tiny_text, tiny_tokenizer

import emolab as el
from emolab.errors import EmolabError
from emolab.experiments import effect, feels
from emolab.experiments.effect import strength_finder
from emolab.experiments.feels import contrasts, emotion_words, wins
from emolab.likelihood import next_token_logprobs, token_losses
from emolab.readout import readout
from emolab.steering import steer
from emolab.writing import direction, own_hooks, pieces, repeated, reread, side_by_side

NAMES = ("bright", "cold", "warm", "dark", "slowly")  # emotions whose words the tiny tokenizer knows
OPENINGS = (tiny_text(1, 6), tiny_text(2, 6), tiny_text(3, 6))
LAYER = 2


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Cues and prompts that the tiny tokenizer knows, and few tokens."""
    monkeypatch.setattr(effect, "CUE", " and she was")
    monkeypatch.setattr(effect, "TOKENS", 12)
    questions = {"someone else": (("the dog", "he was"),), "oneself": (("the night", "and it was"),)}
    monkeypatch.setattr(feels, "PROMPTS", questions)
    monkeypatch.setattr("emolab.data.neutral", lambda: NEUTRAL)


@pytest.fixture(scope="module")
def blank(tmp_path_factory):
    """(subject, vectors): random weights, random directions named like words."""
    subject = el.load((tiny_model(seed=3), tiny_tokenizer()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMOLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        vectors = el.extract(subject, tiny_stories(NAMES), held_out=el.HeldOut(), neutral=NEUTRAL, progress=False)
    return subject, vectors


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """(subject, vectors): blocks that add nothing, so that pushing a word's unembedding raises that word, and the
    residual stream holds the word read: its embedding is the probe."""
    model = tiny_model(seed=4)
    for name, weight in model.named_parameters():
        if "o_proj" in name or "down_proj" in name:
            weight.data.zero_()
    model.lm_head.weight.data *= 3
    subject = el.load((model, tiny_tokenizer()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMOLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        vectors = el.extract(subject, tiny_stories(NAMES), held_out=el.HeldOut(), neutral=NEUTRAL, progress=False)
    rows = [WORDS.index(name) + 2 for name in NAMES]
    order = [vectors.emotions.index(name) for name in NAMES]
    out, read = (m.weight.detach()[rows].numpy() for m in (model.lm_head, model.get_input_embeddings()))
    new, probes = vectors.vectors.copy(), vectors.probes.copy()
    new[order] = (out - out.mean(0))[:, None]
    probes[order] = (read - read.mean(0))[:, None]
    return subject, replace(vectors, vectors=new, probes=probes, metric="probe")


# --- words -------------------------------------------------------------------------------------------------------


def test_a_planted_push_raises_its_own_word_and_the_claims_say_so(planted):
    subject, vectors = planted
    found = emotion_words(subject, vectors, NAMES, layer=LAYER, strength=2)
    row = found.table().loc["someone else"]
    assert row.wins == 1 and row.matching > 1 > row.other and row.contrast > row.contrast_random
    assert {claim.verdict for claim in found.claims()} == {"replicates"}
    assert f"{len(NAMES)} of {len(NAMES)}" in found.verdict() and len(found.figure().axes) == 3
    against = emotion_words(subject, vectors, NAMES, layer=LAYER, strength=-2)
    assert {claim.verdict for claim in against.claims()} == {"does not replicate"}


def test_a_change_is_that_of_a_steered_pass(blank):
    subject, vectors = blank
    found = emotion_words(subject, vectors, NAMES, layer=LAYER, strength=0.5)
    text = subject.chat("the dog") + "\n\nhe was"
    tokens = [subject.encode(name)[0] for name in NAMES]
    plain = next_token_logprobs(subject, [text], tokens)[0]
    with steer(subject, vectors["warm"], 0.5, layers=LAYER, positions=slice(2, None)):
        pushed = next_token_logprobs(subject, [text], tokens)[0]
    np.testing.assert_allclose(found.matrix().loc["warm"], pushed - plain, atol=1e-4)


def test_random_weights_get_no_replication(blank):
    subject, vectors = blank
    words = emotion_words(subject, vectors, NAMES, strength=0.5)
    texts = strength_finder(subject, vectors, emotions=NAMES, strengths=(0.3, 0.8), prompts=OPENINGS)
    assert "replicates" not in {claim.verdict for claim in (*words.claims(), *texts.claims())}


def test_contrast_and_wins_leave_out_what_is_common():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((6, 6))
    shifted = noise + rng.standard_normal((6, 1)) * 9 + rng.standard_normal(6) * 9  # any push, any word
    np.testing.assert_allclose(contrasts(shifted), contrasts(noise), atol=1e-9)
    assert contrasts(noise + 2 * np.eye(6)) == pytest.approx(contrasts(noise) + 2)
    assert wins(np.eye(4)[[0, 1, 3, 2]]).tolist() == [1, 1, 0, 0]


# --- strengths ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finder(planted):
    subject, vectors = planted
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(effect, "CUE", " and she was")
        patch.setattr(effect, "TOKENS", 12)
        patch.setattr("emolab.data.neutral", lambda: NEUTRAL)
        return strength_finder(
            subject, vectors, emotions=NAMES, strengths=(0.05, 6), prompts=OPENINGS, layers=LAYER, seed=1
        )


def test_a_planted_push_writes_its_word_and_reads_so(finder):
    strong = finder.table().loc[6]
    assert strong.named > 0.8 and strong["shift"] > strong.shift_null and strong.shift_low > 0
    assert strong.repeats > strong.random_repeats and finder.table().loc[0.05, "named"] < 0.8
    assert finder.by_emotion().shape[0] == len(NAMES) * 2
    assert set(finder.samples(6, "warm").text.str.split().sum()) >= {"warm"}
    with pytest.raises(EmolabError, match="not tried"):
        finder.samples(3)
    assert len(finder.samples(0)) == effect.PLAIN * len(OPENINGS) and len(finder.figure().axes) == 3


def test_the_rule_wants_effect_and_intact_text(finder, monkeypatch):
    monkeypatch.setattr(effect, "MOST_LOSS", -9)
    assert finder.proposed == () and finder.strength is None and "text intact: none" in finder.verdict()
    assert [claim.verdict for claim in finder.claims()] == ["does not replicate"] * 2
    monkeypatch.setattr(effect, "MOST_LOSS", 99)
    monkeypatch.setattr(effect, "MOST_REPEATS", 1)
    table = finder.table()
    assert table.intact.all() and (table.proposed == table.beyond).all()
    flat = replace(finder, words=np.zeros_like(finder.words))
    assert not flat.proposed and flat.strength is None and "no strength passes" in flat.verdict()
    known = replace(finder, words=finder.scores - finder.scores.mean(1, keepdims=True))
    assert known.strength == 6 and "proposes" in known.verdict() and "6" in known.verdict()
    assert {claim.verdict for claim in known.claims()} == {"replicates"}


def test_damage_is_that_of_the_unpushed_model(finder, planted):
    subject, vectors = planted
    row = finder.texts.iloc[-1]
    losses = token_losses(subject, [row.prompt + row.text])[0]
    start = len(subject.encode(row.prompt))
    assert row.loss == pytest.approx(losses[start:].mean(), rel=1e-3)
    assert row.repeats == repeated(subject.encode(row.prompt + row.text)[start:])
    scores = readout(subject, vectors, row.prompt + row.text).scores(list(NAMES)).iloc[start:].mean()
    np.testing.assert_allclose(finder.scores[-1], scores, atol=1e-2)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"emotions": ["bright", "clod"]}, "did you mean 'cold'"),
        ({"emotions": ["bright", "cold"]}, "at least 3"),
        ({"strengths": []}, "one strength above 0"),
        ({"strengths": [0.2, -0.1]}, "one strength above 0"),
        ({"prompts": []}, "at least one prompt"),
        ({"layers": 9}, "layer 9"),
    ],
)
def test_what_is_wrong_is_said(blank, options, words):
    with pytest.raises(EmolabError, match=words):
        strength_finder(*blank, **options)


def test_words_that_begin_alike_are_refused(tiny, tiny_vectors):
    with pytest.raises(EmolabError, match="same first token"):
        strength_finder(tiny, tiny_vectors)
    with pytest.raises(EmolabError, match="at least 4"):
        emotion_words(tiny, tiny_vectors)


# --- writing -----------------------------------------------------------------------------------------------------


def last(steps):
    *_, end = steps
    return end


def said(subject, ids):
    """Ids as text, after a word before them."""
    return subject.tokenizer.decode([5, *ids], skip_special_tokens=True)[len(WORDS[3]) :]


def test_without_a_push_both_texts_are_the_models_own(tiny, tiny_vectors):
    text = tiny_text(5, 8)
    both = last(side_by_side(tiny, tiny_vectors, text, {"calm": 0.0}, max_new_tokens=10))
    assert both.plain == both.steered and not both.pushed and both.finished
    assert said(tiny, both.plain[8:]) == tiny.generate(text, 10)
    drawn = [last(side_by_side(tiny, tiny_vectors, text, {"calm": 0.0}, max_new_tokens=10, seed=s)) for s in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2] and drawn[0].plain == drawn[0].steered


@pytest.mark.parametrize(
    "positions, pushed",
    [
        (None, set(range(17))),
        ("prompt", set(range(8))),
        ("generated", set(range(8, 17))),
        (slice(3, 9), set(range(3, 9))),
    ],
    ids=str,
)
def test_the_steered_text_is_that_of_steer(tiny, tiny_vectors, positions, pushed):
    text, where = tiny_text(5, 8), {"positions": positions}
    both = last(side_by_side(tiny, tiny_vectors, text, {"calm": 0.9, "glad": -0.4}, max_new_tokens=10, **where))
    with steer(tiny, tiny_vectors, {"calm": 0.9, "glad": -0.4}, **where):
        expected = tiny.generate(text, 10)
    assert said(tiny, both.steered[8:]) == expected
    assert said(tiny, both.plain[8:]) == tiny.generate(text, 10) and both.pushed == pushed


def test_a_prompt_and_what_is_written_are_one_text(planted):
    """Also with a tokenizer that decodes a first word without the blank before it."""
    subject, vectors = planted
    with steer(subject, vectors["warm"], 9, layers=LAYER):
        written = subject.generate(["the dog", "she"], 4)
    assert written == [" warm warm warm warm"] * 2


def test_leaving_early_undoes_the_push(tiny, tiny_vectors):
    steps = side_by_side(tiny, tiny_vectors, tiny_text(5, 8), {"calm": 0.9}, max_new_tokens=30)
    assert len(next(steps).steered) == 9
    steps.close()
    assert not any(block._forward_hooks for block in tiny.blocks)
    with pytest.raises(EmolabError, match="beyond the 64"):
        next(side_by_side(tiny, tiny_vectors, tiny_text(5, 40), {"calm": 0.9}, max_new_tokens=30))


def test_an_end_token_ends_one_text_and_not_the_other(planted, monkeypatch):
    subject, vectors = planted
    monkeypatch.setattr("emolab.writing._end_ids", lambda _: {WORDS.index("warm") + 2})
    both = last(side_by_side(subject, vectors, "the dog", {"warm": 9.0}, layer=LAYER, max_new_tokens=6))
    assert len(both.steered) == 2 < len(both.plain) and max(both.pushed) < 2


def test_a_twin_shares_weights_but_not_hooks(tiny, tiny_vectors):
    twin, text = own_hooks(tiny), tiny_text(7)
    plain = token_losses(tiny, [text])[0]
    with steer(twin, tiny_vectors["calm"], 0.9):
        np.testing.assert_array_equal(token_losses(tiny, [text])[0], plain)
        assert not np.allclose(token_losses(twin, [text])[0][1:], plain[1:])
    assert {p.data_ptr() for p in twin.model.parameters()} == {p.data_ptr() for p in tiny.model.parameters()}


def test_rereading_is_readout_losses_and_next_word(tiny, tiny_vectors):
    texts = [tiny_text(1, 9), tiny_text(2, 14), tiny_text(3, 5)]
    found = reread(tiny, tiny_vectors, [tiny.encode(text) for text in texts], [5, 9])
    for read, text, losses in zip(found, texts, token_losses(tiny, texts), strict=True):
        np.testing.assert_allclose(read.scores, readout(tiny, tiny_vectors, text).scores(), atol=1e-3)
        np.testing.assert_allclose(read.losses, losses, atol=1e-4)
        np.testing.assert_allclose(read.following, next_token_logprobs(tiny, [text], [5, 9])[0], atol=1e-4)


def test_pieces_join_to_the_text(subject):
    text = "Snow ❄️ fell, e\u0301 日本 שלום.\n\n 👩\u200d👧 end"
    ids = subject.encode(text)
    assert "".join(pieces(subject, ids)) == text and len(pieces(subject, ids)) == len(ids)


def test_a_sum_of_emotions_is_pushed_as_it_is_by_name(tiny, tiny_vectors):
    push = direction(tiny, tiny_vectors, {"calm": 0.4, "glad": -0.2}, 3)
    assert direction(tiny, tiny_vectors, {}, 3).tolist() == [0] * 32
    texts = [[5, 6, 7], [8, 9, 10]]
    with torch.inference_mode():
        with steer(tiny, tiny_vectors, {"calm": 0.4, "glad": -0.2}, layers=3):
            named = tiny.model(torch.tensor(texts)).logits
        plain = tiny.model(torch.tensor(texts)).logits
        with steer(tiny, tiny_vectors, np.stack([0 * push, push]), layers=3):  # a row for each text
            rows = tiny.model(torch.tensor(texts)).logits
            with pytest.raises(EmolabError, match="batch of 1"):
                tiny.model(torch.tensor(texts[:1]))
    torch.testing.assert_close(rows[0], plain[0])
    torch.testing.assert_close(rows[1], named[1])


# --- the embedded model ------------------------------------------------------------------------------------------


def test_emotion_words_on_the_embedded_model(subject, shipped, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(feels, "PROMPTS", {k: v[:1] for k, v in feels.PROMPTS.items()})
    found = emotion_words(subject, shipped, directions=4)
    row = found.table().loc["someone else"]
    assert row.contrast_low > 0 and row.contrast > row.contrast_shuffled and found.matrix().shape == (12, 12)
