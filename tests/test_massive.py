"""One coordinate that carries most of the variance, as in the middle layers of many models: what is read by probes does
not change, nor do map and nulls; raw cosine breaks.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

import emolab as el
from emolab.directions import Labelled, fit, unit
from emolab.experiments.paired import null_shares, random_probes
from emolab.extraction import neutral_sd
from emolab.readout import Readout

MASSIVE = 7  # the coordinate
SHARE = 0.7  # of all variance that it gets


@pytest.fixture(scope="module")
def plain(shipped) -> el.EmotionVectors:
    """The shipped vectors of every fourth emotion at the layer that they are read at, made anew from the evidence."""
    return made_from(shipped, 0.0)


@pytest.fixture(scope="module")
def massive(shipped) -> el.EmotionVectors:
    """The same, with one coordinate that swings wildly from text to text and token to token."""
    return made_from(shipped, SHARE)


def swung(rows: np.ndarray, share: float, seed: int) -> np.ndarray:
    """[row, d_model] with noise, and a large mean, in the coordinate, so that it gets this share of the variance."""
    loud = rows.astype(np.float64)
    others = loud.var(0).sum()
    noise = np.random.default_rng(seed).standard_normal(len(rows))
    loud[:, MASSIVE] += np.sqrt(others * share / (1 - share)) * (noise + 3) if share else 0
    return loud


def made_from(shipped: el.EmotionVectors, share: float) -> el.EmotionVectors:
    names, evidence = list(shipped.emotions[::4]), shipped.evidence

    def some(texts: Labelled, seed: int) -> Labelled:
        kept = texts[np.isin(texts.emotions, names)]
        return replace(kept, means=swung(kept.means, share, seed))

    train, choose = some(evidence.train, 0), some(evidence.choose, 1)
    neutral = swung(evidence.neutral, share, 2)
    found = fit(train)
    vectors, probes = found.vectors[:, None], found.probes()[:, None]  # [emotion, layer, d_model]
    return replace(
        shipped[names],
        layers=(shipped.chosen_layer,),
        vectors=vectors,
        probes=probes,
        mean=found.mean[None],
        neutral_mean=neutral.mean(0)[None],
        neutral_sd=neutral_sd(neutral[None], vectors, probes),
        evidence=replace(evidence, train=train, choose=choose, test=None, neutral=neutral, lexical={}),
    )


def reading(vectors: el.EmotionVectors, share: float, **view) -> np.ndarray:
    """[token, emotion] scores of other tokens than those that the baseline is made of."""
    tokens = swung(vectors.evidence.neutral[:200] if not share else _calm_tokens(vectors), share, 5)
    text = "x" * len(tokens)
    spans = tuple((i, i + 1) for i in range(len(tokens)))
    return Readout(text, tuple(text), spans, (), tokens[None].astype(np.float32), vectors).scores(**view).to_numpy()[1:]


def _calm_tokens(vectors: el.EmotionVectors) -> np.ndarray:
    """The same tokens without the noise that `made_from` put on them."""
    return el.load_vectors(el.DEFAULT).evidence.neutral[:200]


def test_the_coordinate_carries_more_than_half_of_the_variance(plain, massive):
    for vectors, large in ((plain, False), (massive, True)):
        variance = vectors.evidence.choose.means.var(0)
        assert (variance[MASSIVE] > 0.5 * variance.sum()) == large


def test_probes_identify_as_before_and_raw_cosine_does_not(plain, massive):
    before, after = plain.quality(), massive.quality()
    probe, vector = ([side.row("choose", metric).top1 for side in (before, after)] for metric in ("probe", "vector"))
    assert probe[0] > 0.8 and abs(probe[1] - probe[0]) < 0.03
    assert vector[0] > 0.6 and vector[1] < 0.5 * vector[0]
    assert after.nulls["max"].max() < 0.12 and before.nulls["max"].max() < 0.12  # 43 emotions; chance 0.023


def test_readings_in_sd_are_the_same_and_cosines_are_not(plain, massive):
    for metric, unit_, same in (("probe", "sd", True), ("vector", "cosine", False)):
        before, after = (
            reading(side, share, metric=metric, unit=unit_) for side, share in ((plain, 0.0), (massive, SHARE))
        )
        r = [np.corrcoef(before[:, e], after[:, e])[0, 1] for e in range(len(plain))]
        assert (np.median(r) > 0.97) == same, np.median(r)
        if same:
            np.testing.assert_allclose(after.std(0), before.std(0), rtol=0.25)


def test_the_map_is_the_same_by_probes(plain, massive):
    pairs = np.triu_indices(len(plain), 1)

    def alike(metric: str) -> float:
        sides = [side.cosines(metric=metric).to_numpy()[pairs] for side in (plain, massive)]
        return spearmanr(*sides).statistic

    assert alike("probe") > 0.98
    assert alike("vector") < 0.9
    nearest = [side.nearest("afraid", 3, metric="probe").index.tolist() for side in (plain, massive)]
    assert len(set(nearest[0]) & set(nearest[1])) >= 2


def test_nulls_of_random_probes_are_not_ruled_by_it(plain, massive):
    """Random directions that vary as stories do reach as much as they did, and do not all read the one coordinate."""
    rng = np.random.default_rng(0)
    for vectors, metric, along in ((plain, "probe", False), (massive, "probe", False), (massive, "vector", True)):
        drawn = unit(random_probes(replace(vectors, metric=metric), rng))
        assert (np.median(np.abs(drawn[:, MASSIVE])) > 0.5) == along
    gaps = [side.evidence.choose.means[:40] - side.evidence.choose.means[40:80] for side in (plain, massive)]
    limits = []
    for side, gap in zip((plain, massive), gaps, strict=True):
        scores = gap @ side.directions(metric="probe").T
        nulls = null_shares(gap, scores, random_probes(side, np.random.default_rng(1)), 5, np.random.default_rng(2))
        limits.append([np.quantile(shares, 0.95) for shares in nulls.values()])
    np.testing.assert_allclose(*limits, atol=0.08)
