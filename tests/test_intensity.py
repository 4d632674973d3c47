"""Numeric sweeps: registered signs, planted slopes, and nothing from a random model."""

import numpy as np
import pytest
from conftest import NEUTRAL, tiny_model, tiny_stories, tiny_subject, tiny_tokenizer
from scipy.stats import spearmanr

import emolab as el
from emolab.experiments import intensity as module
from emolab.experiments.intensity import EMOTIONS, SWEEPS, _null, _signs, _statistics, correlations, intensity


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def planted(slope: float, noise: float, rng) -> dict[str, np.ndarray]:
    """{sweep: [x, emotion]} scores that go the registered way."""
    return {
        sweep.name: np.stack([slope * sweep.signs.get(name, 0) * np.arange(len(sweep.values)) for name in EMOTIONS], 1)
        + noise * rng.standard_normal((len(sweep.values), 4))
        for sweep in SWEEPS
    }


def test_the_registered_signs():
    assert sum(len(sweep.signs) for sweep in SWEEPS) == 12
    for sweep in SWEEPS:
        assert (
            "{x}" in sweep.template and list(sweep.values) == sorted(sweep.values) and set(sweep.signs) <= {*EMOTIONS}
        )
        words = {word.strip(".,?").lower() for word in sweep.template.split()}
        assert not words & {*el.emotions(), "worried"}  # the message names no emotion


def test_correlations_are_spearmans(rng):
    scores = rng.integers(0, 4, size=(7, 30)).astype(float)  # with ties
    expected = [spearmanr(range(7), column)[0] for column in scores.T]
    np.testing.assert_allclose(correlations(scores), expected, atol=1e-12)
    assert correlations(np.ones((6, 2))).tolist() == [0, 0]


@pytest.mark.parametrize("slope", [1, -1])
def test_planted_slopes_come_out_with_their_sign(rng, slope):
    signs = _signs(planted(slope, 0.1, rng))
    assert len(signs) == 12 and signs.signed.to_numpy() == pytest.approx(slope)
    null = {"signed": rng.uniform(-0.4, 0.4, 500), "right": rng.uniform(0.2, 0.8, 500)}
    row = _statistics(signs, {"random": null}, rng).loc["signed"]
    assert [row.value, row.low, row.high] == pytest.approx([slope] * 3) and (row.random_p == 0) == (slope > 0)


def test_noise_is_seldom_more_than_its_null(rng):
    beyond = 0
    for _ in range(40):
        signs = _signs(planted(0, 1, rng))
        pool = {sweep.name: rng.standard_normal((len(sweep.values), 300)) for sweep in SWEEPS}
        beyond += signs.signed.mean() > np.quantile(_null(pool, rng)["signed"], 0.95)
    assert beyond <= 6


def test_nulls_take_a_column_for_each_emotion(rng):
    """With columns that all rise, a null is right where the registered sign is up: in 5 of 12."""
    pool = {sweep.name: np.arange(len(sweep.values))[:, None] * np.ones(9) for sweep in SWEEPS}
    up = [sign for sweep in SWEEPS for sign in sweep.signs.values()].count(1)
    found = _null(pool, rng)
    assert (found["right"] == up / 12).all() and np.allclose(found["signed"], (2 * up - 12) / 12)


@pytest.fixture(autouse=True)
def fewer_draws(monkeypatch):
    monkeypatch.setattr(module, "DRAWS", 1000)


@pytest.mark.parametrize("seed", range(3))
def test_a_random_model_does_not_count(tmp_path, monkeypatch, seed):
    monkeypatch.setenv("EMOLAB_CACHE", str(tmp_path))
    subject = el.load((tiny_model(seed=seed, max_position_embeddings=128), tiny_tokenizer(chat=True)))
    vectors = el.extract(
        subject, tiny_stories((*EMOTIONS, "bored")), held_out=el.HeldOut(), neutral=NEUTRAL, progress=False
    )
    found = intensity(subject, vectors)
    assert found.claims()[0].verdict != "replicates"  # to its tokenizer all numbers are one unknown word


@pytest.fixture(scope="module")
def result(subject, shipped):
    return intensity(subject, shipped)


def test_scores_are_those_of_the_readout(result, subject, shipped):
    sweep = SWEEPS[3]
    message = {"role": "user", "content": sweep.template.format(x=sweep.values[2])}
    expected = shipped.readout(subject, [message]).scores(list(EMOTIONS)).iloc[-1]
    np.testing.assert_allclose(result.scores.loc[(sweep.name, sweep.values[2])], expected, atol=0.05)


def test_the_layer_is_that_of_the_vectors_and_the_profile_agrees(result, shipped):
    assert result.layer == shipped.chosen_layer and list(result.profile.index) == list(shipped.layers)
    for name in ("right", "signed"):
        assert result.profile.loc[result.layer, name] == pytest.approx(result.statistics.loc[name, "value"])
    assert (result.signs.signed == result.signs.predicted * result.signs.spearman).all()
    assert result.statistics.loc["signed", "value"] == pytest.approx(result.signs.signed.mean())


def test_the_verdict_says_what_the_claim_says(result):
    (claim,), said = result.claims(), result.verdict()
    assert claim.value == result.statistics.loc["signed", "value"] and claim.n == 6
    assert ("not shown" in said) == (claim.verdict == "does not replicate")
    assert f"{(result.signs.signed > 0).sum()} of 12" in said
    assert len(result.figure().axes) == 8


def test_vectors_without_what_it_needs(subject, shipped, tiny_vectors):
    with pytest.raises(el.EmolabError, match="evidence"):
        intensity(subject, shipped[list(EMOTIONS)])
    with pytest.raises(el.EmolabError, match="unknown emotion 'happy'"):
        intensity(tiny_subject(), tiny_vectors)
