"""Expectation and setback: readings are those of the readout, the mood is taken off, a null model gets nothing."""

import numpy as np
import pytest
from conftest import NEUTRAL, tiny_model, tiny_stories, tiny_tokenizer

import emolab as el
from emolab.experiments import paired
from emolab.experiments import setbacks as module
from emolab.experiments.setbacks import CHECK, FAMILIES, PLACES, PLAIN, setbacks


@pytest.fixture(scope="module", autouse=True)
def few_draws():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paired, "DRAWS", 1000)
        patch.setattr(paired, "DIRECTIONS", 300)
        yield


@pytest.fixture(scope="module")
def result(subject, shipped):
    return setbacks(subject, shipped)


def test_a_row_for_each_place_and_family(result, shipped):
    assert result.changes.shape == (24, len(PLACES) * len(shipped))
    assert set(result.table().index) == {(place, family) for place in PLACES for family in (*FAMILIES, *CHECK)}
    for (place, family), row in result.table().iterrows():
        names, sign = (FAMILIES | CHECK)[family]
        found = result.changes[place][list(names)].mean(axis=1)
        assert row.change == pytest.approx(found.mean(), abs=1e-6) and row.share == (sign * found > 0).mean()


def test_news_is_read_as_the_readout_reads_it(result, subject, shipped):
    row = el.prompts("setbacks")[4]
    means = {}
    for kind in ("high", "low"):
        for name, then in (("news", row["news"]), ("plain", PLAIN)):
            reading = shipped.readout(subject, f"{row[kind]} {then}")
            inside = reading.where(len(row[kind]) + 1, len(reading.text))
            assert "".join(reading.tokens[inside]).strip() == then
            means[kind, name] = reading.scores().iloc[inside].mean()
    news = means["high", "news"] - means["low", "news"]
    np.testing.assert_allclose(result.changes.loc[row["id"], "news"], news, atol=0.05)
    plain = means["high", "plain"] - means["low", "plain"]
    np.testing.assert_allclose(result.changes.loc[row["id"], PLACES[-1]], news - plain, atol=0.05)


def test_the_openings_differ_in_hope(result):
    hope = result.table().loc[("opening", "hope")]
    assert hope.change_low > 0 and "hope is higher" in result.verdict()


def test_claims_are_about_the_news_with_the_mood_taken_off(result):
    claims = result.claims()
    assert len(claims) == len(FAMILIES) and {claim.part for claim in claims} == {"reading"}
    for claim, family in zip(claims, FAMILIES, strict=True):
        row = result.table().loc[(PLACES[-1], family)]
        assert claim.value == row.share and claim.chance == 0.5 and claim.null == max(row.random_95, row.families_95)
        assert f"nulls up to {claim.null:.0%}: {claim.verdict}" in result.verdict()
    assert len(result.figure().axes) == 2 and len(result.emotions(k=3)) == 6


@pytest.fixture
def null_model(monkeypatch, cache):
    names = sorted({name for names, _ in (FAMILIES | CHECK).values() for name in names})
    tiny = el.load((tiny_model(max_position_embeddings=256), tiny_tokenizer()))
    vectors = el.extract(tiny, tiny_stories(names), held_out=el.HeldOut(), neutral=NEUTRAL, progress=False)
    return tiny, vectors


def test_random_weights_replicate_nothing(null_model):
    claims = setbacks(*null_model).claims()
    assert all(claim.verdict != "replicates" for claim in claims)


def test_a_planted_effect_is_found_and_a_mood_is_not(null_model, monkeypatch):
    tiny, vectors = null_model
    along = vectors.vectors[[vectors.index(name) for name in FAMILIES["hurt"][0]], vectors.row()].mean(0)
    rng = np.random.default_rng(0)

    def parts(meaning, mood):
        def planted(_subject, opening, then, _layer):
            high = any(row["high"] == opening for row in el.prompts("setbacks"))
            push = 30 * along * high * (mood + meaning * (then != PLAIN))
            return [push + 0.01 * rng.standard_normal(len(along)) for _ in range(3)]

        return planted

    monkeypatch.setattr(module, "_parts", parts(1, 0))
    found = setbacks(tiny, vectors).table()
    assert found.loc[("news", "hurt"), "share"] == found.loc[(PLACES[-1], "hurt"), "share"] == 1
    monkeypatch.setattr(module, "_parts", parts(0, 1))
    found = setbacks(tiny, vectors).table()
    assert found.loc[("news", "hurt"), "share"] == 1 and 0.1 < found.loc[(PLACES[-1], "hurt"), "share"] < 0.9


def test_vectors_without_what_it_needs(subject, shipped):
    with pytest.raises(el.EmolabError, match="evidence"):
        setbacks(subject, shipped[["sad", "hurt"]])
