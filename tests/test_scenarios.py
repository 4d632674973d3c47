"""Danger against safety: a planted change is found beyond its nulls, no change is not, and the counts are right."""

import numpy as np
import pytest

import emolab as el
from emolab.experiments import paired
from emolab.experiments.paired import null_shares, statistics
from emolab.experiments.scenarios import FAMILIES, danger_safe


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def nulls(gaps, rng, emotions: int = 30):
    scores = gaps @ rng.standard_normal((gaps.shape[1], emotions))
    return null_shares(gaps, scores, rng.standard_normal((400, gaps.shape[1])), 5, rng)


def test_a_planted_change_along_one_direction_is_found(rng):
    gaps = rng.standard_normal((40, 32))  # [pair, d_model]
    gaps[:, 0] += 2
    row = statistics(gaps[:, 0], 1, nulls(gaps, rng), rng)
    assert row["share"] > 0.9 and row["sign_flip_p"] < 0.001 and row["random_p"] < 0.05
    assert row["change_low"] < row["change"] < row["change_high"] and abs(row["change"] - 2) < 0.5


@pytest.mark.parametrize("sign", [1, -1])
def test_the_sign_is_that_of_the_prediction(rng, sign):
    gaps = rng.standard_normal((40, 32))
    gaps[:, 0] -= 2
    row = statistics(sign * gaps[:, 0], sign, nulls(gaps, rng), rng)
    assert (row["share"] > 0.9) == (sign < 0) and row["change"] < 0
    assert row["change_low"] <= row["change"] <= row["change_high"]


def test_no_change_is_rarely_called_one(rng):
    found = [
        statistics(gaps[:, 0], 1, nulls(gaps, rng), rng)["sign_flip_p"] for gaps in rng.standard_normal((20, 40, 32))
    ]
    assert np.mean(np.array(found) < 0.05) <= 0.2


def test_a_shift_common_to_all_directions_is_real_but_not_special(rng):
    gaps = rng.standard_normal((40, 32)) * 0.1 + rng.standard_normal(32)  # every pair the same way
    along = np.sign(gaps.mean(0)[0]) * gaps[:, 0]
    row = statistics(along, 1, nulls(gaps, rng), rng)
    assert row["sign_flip_p"] < 0.001 and row["random_p"] > 0.2


@pytest.fixture(scope="module")
def result(subject, shipped):
    patch = pytest.MonkeyPatch()
    patch.setattr(paired, "DRAWS", 1000)
    patch.setattr(paired, "DIRECTIONS", 500)
    yield danger_safe(subject, shipped)
    patch.undo()


def test_shares_and_changes_are_those_of_the_pairs(result, shipped):
    assert result.changes.shape == (len(el.prompts("danger_safe")), 2 * len(shipped))
    families = result.families()
    for (place, family), row in result.table().iterrows():
        sign = FAMILIES[family][1]
        assert row.share == (sign * families[place, family] > 0).mean()
        assert row.change == pytest.approx(families[place, family].mean())
        assert row.low <= row.share <= row.high


def test_a_pair_is_read_as_the_readout_reads_it(result, subject, shipped):
    pair = el.prompts("danger_safe")[3]
    means = {}
    for kind in ("danger", "safe"):
        reading = shipped.readout(subject, [{"role": "user", "content": pair[kind]}])
        scores = reading.scores()
        means[kind] = {"last token": scores.iloc[-1], "message": scores.iloc[reading.turns[0].tokens].mean()}
    for place in ("last token", "message"):
        expected = means["danger"][place] - means["safe"][place]
        np.testing.assert_allclose(result.changes.loc[pair["id"], place], expected, atol=0.05)


def test_danger_raises_fear_and_the_verdict_says_so(result):
    assert result.table().loc[("message", "fear"), "share"] > 0.8
    assert "Message: danger takes fear up" in result.verdict() and "random directions" in result.verdict()
    assert len(result.figure().axes) == 2


def test_vectors_without_what_it_needs(subject, shipped):
    with pytest.raises(el.EmolabError, match="evidence"):
        danger_safe(subject, shipped[["afraid", "calm"]])


def test_the_claims_are_the_shares_of_pairs(result):
    claims = result.claims()
    assert len(claims) == len(result.table()) == 4
    for claim, (_, row) in zip(claims, result.table().iterrows(), strict=True):
        assert (claim.value, claim.low, claim.high, claim.chance) == (row.share, row.low, row.high, 0.5)
        assert claim.null >= row.random_95 and claim.n == 40
    fear = next(claim for claim in claims if claim.claim == "Danger raises fear (message)")
    assert fear.verdict == "replicates"
