"""The next word without the emotions: the right losses, fair nulls, a planted use found, and none that isn't there."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ARCHITECTURES, WORDS, tiny_subject, tiny_text

import emolab as el
from emolab.experiments import next_word as module
from emolab.experiments.next_word import FELT, IMPLICIT, NEUTRAL, PLAIN, SECOND, by_layer, next_word
from emolab.likelihood import token_losses
from emolab.steering import ablate
from emolab.subspaces import losses_without, lower_blocks_once, matched_subspaces, share

FEELING = ["laughed", "cried", "shook", "smiled"]
AFTER = "heart"  # what follows a feeling word in the planted texts
PLACES = [word for word in WORDS if word not in (*FEELING, AFTER)]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_losses_are_those_of_whole_passes(architecture, rng):
    subject = tiny_subject(architecture)
    texts = [tiny_text(seed, words=8 + seed % 5) for seed in range(7)]
    bases, centre = rng.standard_normal((2, 3, 32)), 0.1 * rng.standard_normal(32)
    losses, squares = losses_without(subject, texts, bases, centre, 2)
    for loss, plain in zip(losses, token_losses(subject, texts), strict=True):
        np.testing.assert_allclose(loss[0], plain, atol=1e-4)
    for number, basis in enumerate(bases, 1):
        with ablate(subject, basis, centre, 2):
            without = token_losses(subject, texts)
        for loss, expected in zip(losses, without, strict=True):
            np.testing.assert_allclose(loss[number], expected, atol=1e-4)
    hidden = el.read(subject, texts[3], [2])[0] - centre
    np.testing.assert_allclose(squares[3][0, 1:], (hidden[1:] ** 2).sum(1), rtol=1e-3)
    axes = np.linalg.qr(bases[1].T)[0]
    np.testing.assert_allclose(squares[3][2, 1:], ((hidden[1:] @ axes) ** 2).sum(1), rtol=1e-3)


def test_the_lower_blocks_run_once_and_are_put_back(tiny):
    ran = []
    handle = tiny.blocks[0].mlp.register_forward_hook(lambda *_: ran.append(0))
    try:
        with pytest.raises(RuntimeError, match="inside"), lower_blocks_once(tiny, 2):
            first = token_losses(tiny, [tiny_text(1)])[0]
            again = token_losses(tiny, [tiny_text(1)])[0]
            other = token_losses(tiny, [tiny_text(2)])[0]
            raise RuntimeError("inside")
    finally:
        handle.remove()
    assert len(ran) == 2 and (first[1:] == again[1:]).all()
    np.testing.assert_allclose(other, token_losses(tiny, [tiny_text(2)])[0], atol=1e-5)
    assert not any("forward" in block.__dict__ for block in tiny.blocks)


def test_matched_subspaces_take_as_much_from_both_groups(rng):
    scale = np.linspace(3, 0.3, 40)
    groups = [rng.standard_normal((600, 40)) * scale, rng.standard_normal((600, 40)) * scale]
    groups[0][:, 2:14] *= 1.5  # the first group varies more along these, some of which the basis holds
    basis = np.eye(40)[8:12]
    mixed = np.concatenate(groups)
    mixed[:, 8:12] = 0
    found = matched_subspaces(basis, mixed, groups, 5)
    assert np.abs(found[:, :, 8:12]).max() < 1e-6  # mixtures stay outside what the basis holds
    for one in found:
        np.testing.assert_allclose(one @ one.T, np.eye(4), atol=1e-8)
        assert [share(group, one) for group in groups] == pytest.approx([share(g, basis) for g in groups], rel=0.08)
    assert ((found[0] @ found[1].T) ** 2).sum() / 4 < 0.95  # and they are not all the same


# --- planted truths ----------------------------------------------------------------------------------------------


def planted() -> el.Subject:
    """A model whose blocks do nothing; a feeling word says, along two directions alone, that AFTER comes next."""
    subject = tiny_subject()
    model = subject.model
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for block in subject.blocks:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
        words = torch.randn(len(WORDS) + 2, 32, generator=generator)
        words[:, :2] *= 0.2
        rows = subject.tokenizer.convert_tokens_to_ids(FEELING)
        words[rows, 0], words[rows, 1] = 3.0, torch.tensor([2.0, -2.0, 2.0, -2.0])
        model.get_input_embeddings().weight.copy_(words)
        out = 0.05 * torch.randn(len(WORDS) + 2, 32, generator=generator)
        out[:, :2] = 0
        out[subject.tokenizer.convert_tokens_to_ids(AFTER), 0] = 3.0
        model.lm_head.weight.copy_(out)
    return el.load((model, subject.tokenizer))


def felt(rng, n=20) -> str:
    return " ".join(" ".join(rng.choice(PLACES, 2)) + f" {rng.choice(FEELING)} {AFTER}" for _ in range(n // 4))


def plain(rng, n=20) -> str:
    return " ".join(rng.choice(PLACES, n))


def texts_of(rng, n=10):
    texts = [[(kind, felt(rng))] for kind in (IMPLICIT, SECOND) for _ in range(n)]
    texts += [[(PLAIN, plain(rng, 12)), (FELT, felt(rng, 16)), (PLAIN, plain(rng, 12))] for _ in range(n)]
    return texts + [[(NEUTRAL, plain(rng))] for _ in range(n)]


def pool_of(rng):
    return [felt(rng, 40) for _ in range(20)], [plain(rng, 40) for _ in range(20)]


def vectors_for(subject, vectors, directions=None):
    """Vectors that belong to a model, along given directions."""
    made = vectors.vectors if directions is None else np.repeat(directions[:, None], len(vectors.layers), 1)
    info = vectors.info | {"weights": subject.weight_sample}
    return replace(vectors, vectors=made.astype(np.float32), neutral_mean=0 * vectors.neutral_mean, info=info)


@pytest.fixture(scope="module")
def used(tiny_vectors):
    """The planted model without its planted directions."""
    subject, rng = planted(), np.random.default_rng(0)
    one, other = np.eye(32)[:2]
    directions = np.stack([one + other, one - other, -2 * one])
    vectors = vectors_for(subject, tiny_vectors, directions)
    return next_word(subject, vectors, texts=texts_of(rng), pool=pool_of(rng), nulls=10)


def test_a_planted_use_is_found(used):
    assert [claim.verdict for claim in used.claims()] == ["replicates"] * 3
    table = used.table()
    assert table.rise[IMPLICIT] > 0.5 and table.rise[NEUTRAL] < 0.1
    assert {"share: emotions", "share: random activations", "share: other contents"} <= set(table)
    assert used.rank == 2 and used.layer == 2
    assert len(used.figure().axes) == 2


def test_the_words_that_miss_it_are_those_planted(used):
    words = used.words(20)
    assert set(words.token.str.strip()) == {AFTER}
    assert (words.beyond > 0.3).all() and words.before.str.endswith(tuple(FEELING)).all()
    html = used.strip(0)._repr_html_()
    assert AFTER in html and "<script" not in html


def test_every_token_has_the_kind_of_its_segment(used):
    number = next(i for i, text in enumerate(used.texts) if len(text) == 3)
    for kind, start in ((PLAIN, 0), (FELT, 12), (PLAIN, 28)):
        assert used.kinds[number][start] == kind and used.kinds[number][start + 11] == kind
    gap = used.rises.loc[FELT, 0].mean() - used.rises.loc[PLAIN, 0].mean()
    assert used.contrasts().rise["within switching passages"] == pytest.approx(gap)


def test_random_models_do_not_replicate(tiny_vectors):
    """Random weights, random texts: of nine verdicts at most one may fall the other way by chance."""
    verdicts = []
    for seed in range(3):
        subject, rng = tiny_subject(seed=seed), np.random.default_rng(seed)
        texts = [[(kind, plain(rng, 16)) for kind, _ in text] for text in texts_of(rng)]
        pool = [plain(rng, 40) for _ in range(20)], [plain(rng, 40) for _ in range(20)]
        found = next_word(subject, vectors_for(subject, tiny_vectors), texts=texts, pool=pool, nulls=12)
        verdicts += [claim.verdict for claim in found.claims()]
    assert len(verdicts) == 9 and verdicts.count("replicates") <= 1


def test_texts_that_lack_a_side_leave_claims_untested(tiny, tiny_vectors, rng):
    found = next_word(tiny, tiny_vectors, texts=[[("mine", plain(rng))]] * 3, pool=pool_of(rng), nulls=2)
    assert {claim.verdict for claim in found.claims()} == {"not testable on this model"}
    assert list(found.table().index) == ["mine"] and "Mine" in found.verdict()


def test_layers_share_their_texts(tiny, tiny_vectors, rng):
    texts, pool = texts_of(rng, 3), pool_of(rng)
    found = by_layer(tiny, tiny_vectors, texts=texts, pool=pool, nulls=2)
    assert list(found.index.unique("layer")) == [1, 2, 3]
    alone = next_word(tiny, tiny_vectors, layer=3, texts=texts, pool=pool, nulls=2).contrasts()
    np.testing.assert_allclose(found.loc[3].to_numpy(), alone.to_numpy())


def test_too_few_emotions(tiny, tiny_vectors):
    with pytest.raises(el.EmolabError, match="three or more"):
        next_word(tiny, tiny_vectors[["calm", "glad"]])


def test_on_the_embedded_model_emotional_words_are_missed(subject, shipped, monkeypatch):
    monkeypatch.setattr(module, "POOL", 12)
    found = next_word(subject, shipped, texts=2, nulls=2)
    assert len(found.texts) == 10 and found.rank == 10 and found.layer == subject.n_layers // 2
    table = found.table()
    assert table.rise["open stories"] > 0.1
    assert table["share: emotions"]["open stories"] > 1.5 * 10 / subject.d_model
    measured = {words for text in found.texts for _, words in text}
    assert len(measured) == 4 * 2 + 2 * 3  # no text twice
