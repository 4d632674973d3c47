"""The logit lens: the model's own last steps on many architectures, planted words, and nothing from a random model."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ARCHITECTURES, NEUTRAL, tiny_stories, tiny_subject, tiny_text

import emolab as el
from emolab.lens import RATES, _centred, _hit_matrix, logit_lens
from emolab.nulls import KINDS
from emolab.unembed import beginnings, shown, through_model, unembedding

EMOTIONS = ("dark", "warm", "cold", "bright", "heart", "smiled", "cried", "shook")  # words of the tiny tokenizer


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_last_steps_are_those_of_the_model(architecture):
    subject = tiny_subject(architecture)
    text = tiny_text(3)
    last = torch.from_numpy(el.read(subject, text, [subject.n_layers])[0])  # [token, d_model]
    with torch.inference_mode():
        truth = subject.model(torch.tensor([subject.encode(text)])).logits[0]
    unembed = unembedding(subject)
    assert unembed.__name__ == "short"  # no architecture here needs the whole model run
    found = unembed(last)
    assert found.shape == truth.shape
    np.testing.assert_allclose(through_model(subject, last), truth, rtol=1e-3, atol=1e-4)
    if not getattr(subject.config, "final_logit_softcapping", None):
        np.testing.assert_allclose(found, truth, rtol=1e-3, atol=1e-4)
    order = truth.argsort(1)  # a soft cap changes the values, not their order
    assert (found.gather(1, order).diff(dim=1) > -1e-4).all()


def test_a_model_that_does_something_in_between_is_run_as_a_whole():
    subject = tiny_subject()
    head, norm = subject.model.lm_head.forward, subject.decoder.norm
    subject.model.lm_head.forward = lambda hidden: -head(hidden)  # an order that only the whole forward knows ...
    assert unembedding(subject).__name__ == "short"  # ... unless it is in a module that is watched
    forward = subject.model.forward

    def odd(*args, **kwargs):
        output = forward(*args, **kwargs)
        output.logits = -output.logits
        return output

    subject.model.forward = odd
    states = torch.randn(70, 32)
    unembed = unembedding(subject)
    assert unembed.__name__ == "whole"
    np.testing.assert_allclose(unembed(states), head(norm(states)), rtol=1e-4, atol=1e-5)


def test_no_hook_is_left_behind(tiny):
    def hooks():  # transformers leaves some of its own
        return [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in tiny.model.modules()]

    before = hooks()
    unembedding(tiny)
    assert hooks() == before


@pytest.fixture(scope="module")
def random_model(tmp_path_factory):
    """A random model and vectors of eight words of its vocabulary, from random texts."""
    subject = tiny_subject(max_position_embeddings=512)  # room for the neutral texts
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMOLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        stories = tiny_stories(EMOTIONS)
        return subject, el.extract(subject, stories, held_out=el.HeldOut(), neutral=NEUTRAL, progress=False)


@pytest.fixture
def top_three(monkeypatch):
    """A smaller top: the tiny vocabulary has 41 tokens."""
    monkeypatch.setattr("emolab.lens.AMONG", 3)


@pytest.fixture(scope="module")
def planted(random_model):
    """The same with vectors at the last layer that point to the unembedding of the emotion's own word."""
    subject, vectors = random_model
    rows = [subject.tokenizer.convert_tokens_to_ids(name) for name in vectors.emotions]
    made = vectors.vectors.copy()
    made[:, -1] = subject.model.get_output_embeddings().weight[rows].numpy()
    return subject, replace(vectors, vectors=made)


def test_planted_words_are_named_and_only_where_they_are(planted, top_three):
    subject, vectors = planted
    lens = logit_lens(subject, vectors, k=4)
    words = lens.words.loc[vectors.layers[-1]]
    assert [top[0] for top in words.top] == list(vectors.emotions)
    assert (words["own rank"] == 1).all() and words["own word"].all()
    assert lens.table(vectors.layers[-1]).top["warm"].startswith("warm  ")
    with pytest.raises(el.EmolabError, match="words are kept"):
        lens.table(vectors.layers[1])
    assert lens.profile["own word"].iloc[-1] == 1 > lens.profile["own word"].iloc[:-1].max()
    assert lens.rates.loc[(vectors.layers[-1], "own word"), "share"] == 1
    assert lens.claims()[-1].verdict == "replicates"


def test_a_random_model_names_nothing(random_model, top_three):
    lens = logit_lens(*random_model)
    assert all(claim.verdict != "replicates" for claim in lens.claims())
    assert {len(side) for side in lens.words.top} == {10} and "top 3 tokens" in lens.verdict()


def test_common_tokens_are_taken_off_and_names_chosen(planted):
    subject, vectors = planted
    pushed = replace(vectors, vectors=vectors.vectors + 5 * vectors.vectors[:1])  # one word in all of them
    tops = logit_lens(subject, pushed, ["warm", "cold"], layer=vectors.layers[-1], k=3).words.loc[vectors.layers[-1]]
    assert list(tops.index) == ["warm", "cold"]
    assert [top[0] for top in tops.top] == ["warm", "cold"]
    assert not set(tops.top["warm"]) & set(tops.bottom["warm"])


def test_what_it_refuses(tiny, tiny_vectors):
    with pytest.raises(el.EmolabError, match="whole vectors"):
        logit_lens(tiny, tiny_vectors["calm"])
    with pytest.raises(el.EmolabError, match="did you mean"):
        logit_lens(tiny, tiny_vectors, "clam")
    with pytest.raises(el.EmolabError, match="layer 9"):
        logit_lens(tiny, tiny_vectors, layer=9)
    with pytest.raises(el.EmolabError, match="made for"):
        logit_lens(tiny_subject(seed=1), tiny_vectors)


def test_hits_are_counted_by_token():
    top = np.array([[3, 4], [5, 6], [9, 3]])
    assert _hit_matrix(top, [{3}, {7, 6}, set()]).tolist() == [
        [True, False, False], [False, True, False], [True, False, False]
    ]  # fmt: skip


def test_words_have_tokens_with_and_without_blank_and_capital(subject):
    texts = {subject.tokenizer.decode([i]) for i in beginnings(subject, "happy")}
    assert {"happy", " happy", "Happy", " Happy"} >= texts and len(texts) >= 3
    assert all(subject.tokenizer.decode([i]).strip() for name in el.emotions() for i in beginnings(subject, name))
    blank = subject.tokenizer(" happy", add_special_tokens=False)["input_ids"][0]
    assert shown(subject, blank) == "·happy"


@pytest.fixture(scope="module")
def lens(subject, shipped):
    """The lens of the shipped vectors at two layers."""
    layers = (shipped.chosen_layer, subject.n_layers)
    rows = [shipped.row(layer) for layer in layers]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("emolab.lens.SEEDS", 3)
        yield logit_lens(subject, replace(shipped, layers=layers, vectors=shipped.vectors[:, rows]))


def test_the_default_model_names_its_emotions_at_the_end_and_not_before(lens):
    assert lens.profile.loc[30, "own word"] > 0.3 > 0.05 > lens.profile.loc[20, "own word"]
    assert (lens.profile["family"] >= lens.profile["own word"]).all()
    middle, last = lens.claims()
    assert last.verdict == "replicates" and middle.verdict != "replicates"
    assert last.null < 0.05 and last.low < last.value < last.high and last.n == 171
    assert {*KINDS[:2], "shuffled labels"} <= set(lens.rates)
    assert f"{lens.rates.loc[(30, RATES[0]), 'share']:.0%}" in lens.verdict()
    assert len(lens.figure().axes) == 2


def test_what_the_vectors_say_at_the_deepest_layer(subject, shipped):
    logits = _centred(subject, unembedding(subject), shipped.vectors[:, -1])
    tops = {name: logits[shipped.index(name)].topk(10).indices.tolist() for name in ("sad", "guilty", "proud")}
    said = {name: {shown(subject, token) for token in tokens} for name, tokens in tops.items()}
    assert "·sadness" in said["sad"] and "·guilt" in said["guilty"] and "·proud" in said["proud"]


def test_tokens_are_escaped_in_html(lens):
    words = lens.words.assign(top=[("<script>alert(1)</script>",)] * len(lens.words))
    html = replace(lens, words=words).table()._repr_html_()
    assert "<script>" not in html and "&lt;script&gt;" in html
