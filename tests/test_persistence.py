"""Planted signals come back, what lasts is said to last, noise is no mood; a push touches what it should, and goes."""

import numpy as np
import pandas as pd
import pytest
from conftest import tiny_subject
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from scipy import stats

import emolab as el
from emolab import brevity_plots, data
from emolab.decay import (
    autocorrelation,
    curve_row,
    event_locked,
    half_life,
    integrated_time,
    kaplan_meier,
    life,
    life_row,
    mean_with_band,
    median_life,
    runs,
    share_row,
)
from emolab.persistence import EMOTION, GONE, HELD, NULLS, Event, carry_over, measure, persistence, switching
from emolab.pulse import EARLIER, LONG, pulse
from emolab.tracks import Tracks, null_directions, record, upright

LEVEL, TOKENS = 3.0, 60


def planted(true: float, events: int, noise: float, offset: float = 0.0, seed: int = 0) -> np.ndarray:
    """[event, token] LEVEL x 2 ** (-n / true) at the n-th token after the event, plus an offset and noise."""
    curve = LEVEL * 0.5 ** (np.arange(1, TOKENS + 1) / true)
    return curve + offset + noise * np.random.default_rng(seed).standard_normal((events, TOKENS))


def tracks_of(scores: list[np.ndarray], events: list[Event], seeds: int = 2):
    kinds = (EMOTION, *(kind for kind in NULLS for _ in range(seeds)))
    return measure(Tracks(("afraid",), kinds, tuple(s[..., None] for s in scores), 1, "toy"), events)


# --- half-lives ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("true", [2, 5, 20])
@pytest.mark.parametrize("offset", [0.0, 5.0, -5.0])
def test_planted_half_lives_under_offset(true, offset):
    after = planted(true, 1, noise=0, offset=offset)[0]
    assert half_life(after, LEVEL + offset, baseline=offset) == (true, True)


@pytest.mark.parametrize("noise", [1, 2])
@pytest.mark.parametrize("true", [2, 5, 20])
def test_planted_half_lives_under_noise(true, noise):
    """The interval of the mean curve holds the truth about as often as it says, and is not wide for nothing."""
    rows = []
    for seed in range(10):
        after = planted(true, 60, noise, offset=2.0, seed=seed) - 2.0
        rows.append(curve_row(after, np.full(60, LEVEL)))
    found = pd.DataFrame(rows)
    assert ((found.of_mean_low <= true) & (true <= found.of_mean_high)).mean() >= 0.8
    assert found.of_mean.median() == pytest.approx(true, abs=1)
    assert (found.of_mean_high - found.of_mean_low).median() <= 0.5 * true + 1


@pytest.mark.parametrize("true", [2, 5, 20])
def test_planted_half_lives_of_single_events(true):
    """Kaplan-Meier over events; under noise five tokens in a row take a little longer to be below half."""
    rows = pd.DataFrame([life(track, LEVEL) for track in planted(true, 60, noise=0.1)])
    found = life_row(rows)
    assert found["low"] - 0.1 * true <= true <= found["high"] and found["not_reached"] == 0 and found["rose"] == 1


def test_what_lasts_is_not_reached():
    assert half_life(np.full(60, LEVEL), LEVEL) == (56, False)
    row = curve_row(np.full((20, 60), LEVEL), np.full(20, LEVEL))
    assert row == {"of_mean": np.inf, "of_mean_low": np.inf, "of_mean_high": np.inf}
    assert np.isinf(median_life(kaplan_meier(np.full(9, 56), np.zeros(9, bool))))


def test_white_noise_is_gone_at_once():
    """Events of pure noise that rose by luck: no longer than the noise along directions that mean nothing."""
    rng = np.random.default_rng(0)
    scores, events = [], []
    for i in range(80):
        scores.append(rng.standard_normal((190, 7)) + 0.0)
        scores[-1][60:120] += np.where(rng.random(7) < 0.5, 1, -1)  # rises within, and white noise after it
        scores[-1][60:120, 0] = np.abs(scores[-1][60:120, 0])
        events.append(Event(i, "afraid", 60, 120, 190, "neutral"))
    found = tracks_of(scores, events).table()
    assert found.half_life["all"] <= found.high[NULLS[0]] and found.of_mean["all"] == 1
    assert found.half_life["all"] <= found.high[GONE] and found.half_life[HELD] > 3 * found.half_life["all"]


@pytest.mark.parametrize("after, level", [(np.ones(9), 0.0), (np.ones(9), np.nan), (np.ones(4), 2.0)])
def test_a_half_life_needs_a_rise_and_tokens(after, level):
    with pytest.raises(el.EmolabError, match="half-life needs"):
        half_life(after, level)


@given(st.lists(st.tuples(st.integers(1, 20), st.booleans()), min_size=1, max_size=30))
def test_kaplan_meier_is_scipys(events):
    tokens, reached = (np.array(column) for column in zip(*events, strict=True))
    ours = kaplan_meier(tokens, reached)
    theirs = stats.ecdf(stats.CensoredData(uncensored=tokens[reached], right=tokens[~reached])).sf
    for time, share in zip(theirs.quantiles, theirs.probabilities, strict=True):
        assert ours[int(time) - 1] == pytest.approx(share, abs=1e-9)


def test_kaplan_meier_by_hand():
    """Six events: two fall at 1, one is lost from view at 2, one falls at 3, two are never seen to fall."""
    tokens, reached = np.array([1, 1, 2, 3, 5, 5]), np.array([True, True, False, True, False, False])
    assert kaplan_meier(tokens, reached) == pytest.approx([4 / 6, 4 / 6, 4 / 6 * 2 / 3, 4 / 9, 4 / 9])
    assert median_life(kaplan_meier(tokens, reached)) == 3
    twice = kaplan_meier(np.repeat(tokens, 2), np.repeat(reached, 2))
    assert kaplan_meier(tokens, reached, np.full((1, 6), 2))[0] == pytest.approx(twice)


def test_share_that_is_left():
    after = np.tile(LEVEL * 0.25, (30, 60)) * np.random.default_rng(0).uniform(0.5, 1.5, (30, 1))
    share, low, high = share_row(after, np.full(30, LEVEL), slice(20, 60))
    assert low < 0.25 < high and share == pytest.approx(0.25, abs=0.05)


# --- correlation, runs, windows ------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9])
def test_autocorrelation_of_a_known_process(memory):
    rng, track = np.random.default_rng(1), np.zeros((20000, 2))
    for i, noise in enumerate(rng.standard_normal((19999, 2)), 1):
        track[i] = memory * track[i - 1] + noise
    found = autocorrelation([track[:9000] + 100, track[9000:] - 7], lags=20)  # [lag, column]; each track has its offset
    assert found == pytest.approx(np.tile(memory ** np.arange(21)[:, None], 2), abs=0.06)
    long = autocorrelation([track[:, 0]], lags=60)
    assert integrated_time(long) == pytest.approx((1 + memory) / (1 - memory), rel=0.25)


def test_autocorrelation_needs_long_texts():
    with pytest.raises(el.EmolabError, match="no track is longer"):
        autocorrelation([np.zeros(10)], lags=10)


@given(st.lists(st.booleans(), max_size=50))
def test_runs(above):
    lengths = runs(np.array(above, dtype=float) * 2)
    assert lengths.sum() == sum(above)
    assert sorted(lengths) == sorted(len(run) for run in "".join("x" if a else " " for a in above).split())


def test_windows_around_an_event():
    track = np.arange(10.0)
    assert event_locked(track, 4, 2, 3).tolist() == [2, 3, 4, 5, 6]
    assert np.isnan(event_locked(track, 0, 2, 3)).tolist() == [True, True, False, False, False]
    assert np.isnan(event_locked(track, 9, 1, 3)).tolist() == [False, False, True, True]
    mean, low, high, _ = mean_with_band(np.array([[1.0, np.nan], [3.0, 5.0], [2.0, 5.0]]))
    assert mean.tolist() == [2, 5] and low[0] < 2 < high[0] and low[1] == high[1] == 5


def test_nulls_have_no_right_way_round():
    assert upright([EMOTION, *NULLS], np.array([-1.0, -1.0, 1.0, 0.0])).tolist() == [1, -1, 1, 1]


# --- with a tiny model ---------------------------------------------------------------------------------------------


def test_scores_are_those_of_a_readout(long_tiny, long_vectors):
    texts, events = switching(long_tiny, ["afraid"])
    tracks = record(long_tiny, long_vectors, texts[:3], ["calm", "afraid"], seeds=2)
    assert tracks.kinds == (EMOTION, *(kind for kind in NULLS for _ in range(2)))
    for text, scores in zip(texts, tracks.scores, strict=False):
        own = long_vectors.readout(long_tiny, text).scores(["calm", "afraid"])
        assert scores[1:, 0] == pytest.approx(own.to_numpy()[1:], rel=1e-3, abs=1e-3)
    event, row = events[0], data.prompts("switching")[0]
    within = long_vectors.readout(long_tiny, texts[0]).tokens[event.start : event.end]
    assert "".join(within).strip() == row["segments"][1]["text"]


def test_null_scores_vary_as_much_on_neutral_tokens(long_vectors):
    null = null_directions(long_vectors, [0, 1], seeds=3)
    assert null.shape == (9, 2, 32) and len(np.unique(null[..., 0].round(9))) == 18


@pytest.mark.parametrize("function", [persistence, carry_over])
def test_results(long_tiny, long_vectors, function):
    found = function(long_tiny, long_vectors, ["afraid", "calm"], seeds=2)
    table = found.table()
    assert {"afraid", "calm", "all", *NULLS} <= set(table.index)
    assert "tiny" in found.verdict().lower() or "llama" in found.verdict().lower()
    assert isinstance(found.figure(), Figure)
    with pytest.raises(el.EmolabError, match="did you mean 'afraid'"):
        function(long_tiny, long_vectors, "afrayd")


def test_one_emotion(long_tiny, long_vectors):
    found = persistence(long_tiny, long_vectors, "calm", seeds=2)
    assert "calm rises in" in found.verdict("calm") and isinstance(found.figure("calm"), Figure)
    assert isinstance(brevity_plots.correlation_figure(found), Figure)
    with pytest.raises(el.EmolabError, match="angry"):
        found.verdict("angry")


def test_nulls_need_the_evidence(long_tiny, long_vectors):
    with pytest.raises(el.EmolabError, match="evidence"):
        persistence(long_tiny, long_vectors[["calm", "afraid"]], "calm")


# --- the pulse ---------------------------------------------------------------------------------------------------


def test_pulse(long_tiny, long_vectors):
    found = pulse(long_tiny, long_vectors, ["calm", "afraid"], layer=2, layers=(2, 3, 4), texts=2, seeds=2)
    own = found.effects[found.effects.kind == EMOTION]
    assert len(own) == 3 * 2 * 2 and len(found.effects) == len(own) * 5
    assert np.abs(found.afters[found.effects.layer == 2]).max() < 1e-4  # nothing but the push at its own layer
    assert np.abs(found.afters[found.effects.layer == 4]).max() > 0
    assert EARLIER + LONG < 60
    table = found.table()
    assert table.loc[(2, EMOTION), "of_mean"] == 1 and isinstance(found.figure(), Figure) and found.verdict()
    with pytest.raises(el.EmolabError, match="reads at most 64"):
        pulse(tiny_subject(), long_vectors, ["calm"])


# --- the embedded model --------------------------------------------------------------------------------------------


def test_the_emotional_segment_stands_out(subject, shipped):
    """Nearly every passage scores higher within its emotional segment than before it and after it."""
    texts, events = switching(subject)
    three = [event for event in events if event.into == "neutral"]
    assert len(three) == 60
    names = sorted({event.emotion for event in events})
    tracks, means = record(subject, shipped, [texts[event.text] for event in three], names, seeds=1), []
    for event, scores in zip(three, tracks.scores, strict=True):
        score = scores[:, 0, names.index(event.emotion)]
        means.append([score[1 : event.start].mean(), score[event.start : event.end].mean(), score[event.end :].mean()])
    before, within, after = np.array(means).T
    assert ((within > before) & (within > after)).mean() > 0.9


def test_the_claim_tells_a_moment_from_a_mood():
    """Planted tracks: what goes with its event replicates, what stays does not."""
    rng = np.random.default_rng(0)
    events = [Event(i, "afraid", 20, 50, 100, "neutral") for i in range(20)]

    def claim(after: float):
        levels = np.repeat([0.0, 2.0, 2.0 * after], [20, 30, 50])[:, None, None]
        kinds = (EMOTION, *NULLS)
        own = np.concatenate([levels, np.zeros((100, 3, 1))], axis=1)  # [token, variant, emotion]
        scores = tuple(own + rng.normal(0, 1, own.shape) for _ in events)
        return measure(Tracks(("afraid",), kinds, scores, 3, "planted"), events).claims()[0]

    assert claim(0.0).verdict == "replicates" and claim(1.0).verdict != "replicates"
    assert claim(1.0).value == pytest.approx(0, abs=0.1)
    assert claim(0.25).value == pytest.approx(0.75, abs=0.1)
