"""Vectors, probes and identification against independent truth and planted signals."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from emolab.data import Story
from emolab.directions import (
    SHRINKAGE,
    Labelled,
    choose,
    fit,
    identify,
    left_out_ranks,
    lexical_ranks,
    ranks,
    summary,
    unit,
)

EMOTIONS = np.array([f"e{i:02}" for i in range(8)])
PARTS = np.array([f"p{i}" for i in range(6)])


def planted(rng, d_model=24, signal=1.0, massive=0.0):
    """Stories = part + emotion + noise; optionally one coordinate that drowns all others."""
    emotion, part = (grid.ravel() for grid in np.meshgrid(range(len(EMOTIONS)), range(len(PARTS)), indexing="ij"))
    effects = rng.standard_normal((len(EMOTIONS), d_model)) * signal
    settings_ = rng.standard_normal((len(PARTS), d_model)) * 3
    means = effects[emotion] + settings_[part] + rng.standard_normal((len(emotion), d_model)) * 0.5
    means[:, 0] += massive * rng.standard_normal(len(emotion))
    return Labelled(means, EMOTIONS[emotion], PARTS[part]), effects


def test_balanced_stories_give_the_emotion_mean_minus_the_mean():
    texts, _ = planted(np.random.default_rng(0))
    by_emotion = pd.DataFrame(texts.means).groupby(texts.emotions).mean().to_numpy()
    fitted = fit(texts)
    np.testing.assert_allclose(fitted.vectors, by_emotion - by_emotion.mean(0), atol=1e-9)
    np.testing.assert_allclose(fitted.mean, by_emotion.mean(0), atol=1e-9)


def test_settings_cancel_even_where_some_stories_are_missing():
    rng = np.random.default_rng(1)
    texts, effects = planted(rng)
    kept = rng.random(len(texts)) > 0.25
    kept[: len(PARTS)] = True
    found = fit(texts[kept]).vectors
    truth = effects - effects.mean(0)
    by_emotion = pd.DataFrame(texts.means[kept]).groupby(texts.emotions[kept]).mean().to_numpy()
    assert np.abs(found - truth).mean() < 0.5 * np.abs(by_emotion - by_emotion.mean(0) - truth).mean()


def test_token_weights_are_weights():
    texts, _ = planted(np.random.default_rng(2))
    weights = np.random.default_rng(3).integers(1, 4, len(texts))
    repeated = texts[np.repeat(np.arange(len(texts)), weights)]
    np.testing.assert_allclose(fit(texts, weights).vectors, fit(repeated).vectors, atol=1e-8)


def test_probes_are_the_discriminant_directions():
    texts, _ = planted(np.random.default_rng(4))
    fitted = fit(texts)
    probes = fitted.probes()
    np.testing.assert_allclose(np.einsum("ed,df,ef->e", probes, fitted.metric, probes), 1, rtol=1e-8)
    # scikit-learn's shrunk discriminant, on stories whose setting is taken out, each coordinate at unit variance
    scale = np.sqrt(np.diag(fitted.metric))
    centred = texts.means - pd.DataFrame(texts.means).groupby(texts.parts).transform("mean").to_numpy()
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=SHRINKAGE).fit(centred / scale, texts.emotions)
    cosine = (unit(lda.coef_ / scale) * unit(probes)).sum(1)
    assert cosine.min() > 0.999


def test_probes_do_not_care_about_a_massive_coordinate():
    texts, _ = planted(np.random.default_rng(5), signal=0.5, massive=300)
    rank = left_out_ranks(texts)
    assert summary(rank["probe"])["top1"] > 0.9
    assert summary(rank["vector"])["top1"] < 0.6


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_without_signal_nothing_is_identified(seed):
    rng = np.random.default_rng(seed)
    texts, _ = planted(rng, signal=0)
    fresh = Labelled(rng.standard_normal((400, 24)), rng.choice(EMOTIONS, 400), np.full(400, "p"))
    fitted = fit(texts)
    for metric in ("vector", "probe"):
        top1 = summary(identify(fitted.directions(metric), fitted.emotions, fresh))["top1"]
        assert top1 == pytest.approx(1 / len(EMOTIONS), abs=0.12)


@given(st.lists(st.lists(st.integers(-5, 5), min_size=4, max_size=4), min_size=1, max_size=9), st.data())
def test_rank_is_the_place_in_the_order_and_ties_count_against(rows, data):
    scores = np.array(rows)
    truth = np.array([data.draw(st.sampled_from("abcd")) for _ in rows])
    for row, emotion, rank in zip(scores, truth, ranks(scores, "abcd", truth), strict=True):
        own = row["abcd".index(emotion)]
        assert rank == 1 + sum(value >= own for value in row) - 1
        assert rank == 4 or sorted(row)[::-1][rank] < own


def test_words_alone_identify_when_the_words_tell_and_not_otherwise():
    train = [Story(e, f"{e} {e} something {p}", p) for e in ("joy", "rage", "fear") for p in ("x", "y")]
    telling = [Story(e, f"again {e} here", "z") for e in ("joy", "rage", "fear")]
    silent = [Story(e, "something else", "z") for e in ("joy", "rage", "fear")]
    assert (lexical_ranks(train, telling) == 1).all()
    assert (lexical_ranks(train, silent, genre=telling) == 3).all()


def test_the_layer_rule_prefers_a_plateau_to_a_lucky_layer():
    profile = pd.DataFrame({"vector": [0.1] * 7, "probe": [0.2, 0.9, 0.2, 0.7, 0.71, 0.7, 0.6]}, index=range(1, 8))
    assert choose(profile) == (5, "probe")
    assert choose(profile.rename(columns={"probe": "vector", "vector": "probe"})) == (5, "vector")


def test_a_single_story_of_each_emotion_leaves_the_metric_plain():
    texts, _ = planted(np.random.default_rng(0))
    one = texts[texts.parts == "p0"]
    found = fit(one)
    np.testing.assert_allclose(found.metric, np.eye(24))
    np.testing.assert_allclose(unit(found.probes()), unit(found.vectors))
