"""Two models side by side: what they share is found, what they don't isn't, and words are not mistaken for it."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

import emolab as el
from emolab.agreement import BEYOND, OTHER, SAME, WORDS, _measured, compare

NAMES = 30


@pytest.fixture(scope="module")
def one(shipped) -> el.EmotionVectors:
    """The shipped vectors of some emotions at the layer that they are read at, with their evidence."""
    row, chosen = shipped.row(), shipped.emotions[:: len(shipped) // NAMES][:NAMES]
    some, train = shipped[chosen], shipped.evidence.train
    return replace(
        some,
        layers=(shipped.chosen_layer,),
        vectors=some.vectors[:, [row]],
        probes=some.probes[:, [row]],
        info=shipped.info | {"model": "one"},
        evidence=replace(shipped.evidence, train=train[np.isin(train.emotions, chosen)]),
    )


def turned(vectors: el.EmotionVectors, order=None, seed: int = 0) -> el.EmotionVectors:
    """The same in a space that has been turned and stretched, with the emotions' places given to others."""
    d = vectors.vectors.shape[-1]
    turn, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))
    order = np.arange(len(vectors)) if order is None else order
    train = vectors.evidence.train
    names = dict(zip(np.array(vectors.emotions)[order], vectors.emotions, strict=True))
    labels = np.array([names[name] for name in train.emotions])
    return replace(
        vectors,
        vectors=(3 * vectors.vectors @ turn)[order],
        probes=(vectors.probes @ turn / 3)[order],
        info=vectors.info | {"model": "two"},
        evidence=replace(vectors.evidence, train=replace(train, means=3 * train.means @ turn, emotions=labels)),
    )


def test_a_model_agrees_with_itself_turned_and_stretched(one):
    found = compare(one, turned(one))
    assert found.rows.rho[SAME] == pytest.approx(1, abs=1e-3)
    assert found.rows.low[SAME] > 0.99 and found.rows.null[SAME] < 0.3
    assert found.layers.shape == (1, 1) and found.layers.iloc[0, 0] == pytest.approx(1, abs=1e-3)
    assert found.by_emotion.min() > 0.99 and found.by_emotion.is_monotonic_increasing
    apart = np.hypot(found.places.x - found.places.x2, found.places.y - found.places.y2)
    assert apart.median() < 0.1 * np.ptp(found.places.x)
    assert "one (layer 20) and two" in found.verdict() and "agree least on" in found.verdict()
    assert isinstance(found.figure(), Figure) and isinstance(found.heatmap(), Figure)


def test_on_other_texts_they_agree_less_and_beyond_words_less_still(one):
    rows = compare(one, turned(one)).rows
    assert rows.rho[SAME] > rows.rho[OTHER] > rows.rho[BEYOND] > rows.null[BEYOND] > 0
    assert rows.rho[OTHER] > rows.rho[WORDS] > rows.null[WORDS]


def test_models_that_share_nothing_stay_within_the_null(one):
    orders = [np.random.default_rng(seed).permutation(NAMES) for seed in range(3)]
    rows = [compare(one, turned(one, order), seed=1).rows for order in orders]
    assert np.mean([row.rho[SAME] <= row.null[SAME] for row in rows]) > 0.5
    assert np.mean([abs(row.rho[OTHER]) for row in rows]) < 0.2


def test_what_words_share_is_no_agreement_beyond_them():
    rng = np.random.default_rng(0)
    words = np.corrcoef(rng.standard_normal((40, 6)))
    a, b = (words + 0.4 * (lambda m: m + m.T)(rng.standard_normal((40, 40))) for _ in range(2))
    plain, beyond = _measured(a, b, (), rng), _measured(a, b, (words,), rng)
    assert plain[0] > plain[3] and plain[1] > 0
    assert beyond[0] <= beyond[3] * 1.5 and beyond[1] < 0 < beyond[2]


def test_the_same_answer_every_time_whichever_comes_first(one):
    two = turned(one)
    a, b = compare(one, two), compare(one, two)
    assert a.rows.equals(b.rows) and a.verdict() == b.verdict()
    swapped = compare(two, one)
    np.testing.assert_allclose(swapped.rows.rho[SAME], a.rows.rho[SAME], atol=1e-6)
    assert swapped.models == ("two", "one")


def test_without_evidence_or_texts_the_rest_is_still_said(one):
    bare = replace(one, evidence=None)
    assert list(compare(bare, one).rows.index) == [SAME]
    foreign = replace(one, info=one.info | {"corpus": "another"})
    assert list(compare(foreign, one).rows.index) == [SAME, OTHER]


def test_too_few_emotions_in_common(one):
    with pytest.raises(el.EmolabError, match="3 emotions in common"):
        el.compare(one, one[list(one.emotions[:3])])
