"""Scores of a text: what is planted is read, in the unit that was asked for."""

from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import NEUTRAL
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import emolab as el
from emolab.directions import METRICS
from emolab.readout import UNITS

TEXT = "the dog ran to the bright door and she waited alone"
EMOTIONS = ("afraid", "calm", "glad")
FEAR = ["afraid", "frightened", "terrified"]

finite = {"allow_nan": False, "allow_infinity": False, "width": 32}
amount = st.floats(1, 50, **finite) | st.floats(-50, -1, **finite)
views = st.fixed_dictionaries({"layer": st.integers(1, 4), "metric": st.sampled_from(METRICS)})


@pytest.fixture(scope="module")
def reading(tiny, tiny_vectors) -> el.Readout:
    return tiny_vectors.readout(tiny, TEXT)


def planted(reading: el.Readout, emotion: str, amounts: list[float], layer: int, metric: str) -> el.Readout:
    """The reading of a text that is neutral but for a known raw score of one emotion at each token."""
    vectors = reading.vectors
    direction = vectors[emotion].directions(layer, metric)[0]
    signal = np.outer(amounts, direction / (direction @ direction))  # [token, d_model]
    hidden = np.repeat(vectors.neutral_mean[:, None], len(amounts), 1) + signal.astype(np.float32)
    return replace(reading, tokens=tuple(map(str, range(len(amounts)))), hidden=hidden)


# --- what is planted comes back ----------------------------------------------------------------------------------


@settings(deadline=None)
@given(emotion=st.sampled_from(EMOTIONS), amounts=st.lists(amount, min_size=1, max_size=8), view=views)
def test_a_planted_score_is_recovered_in_every_unit(reading, tiny_vectors, emotion, amounts, view):
    text = planted(reading, emotion, [1, *amounts], **view)
    row, metric = tiny_vectors.row(view["layer"]), METRICS.index(view["metric"])
    sd = tiny_vectors.neutral_sd[metric, tiny_vectors.index(emotion), row]
    for unit, expected in {"raw": amounts, "sd": amounts / sd, "cosine": np.sign(amounts)}.items():
        scores = text.scores(emotion, unit=unit, **view)[emotion]
        np.testing.assert_allclose(scores[1:], expected, rtol=1e-2)


@settings(deadline=None)
@given(hidden=arrays(np.float32, (4, 3, 32), elements=st.floats(-1e4, 1e4, **finite)), view=views)
def test_cosines_are_cosines(reading, hidden, view):
    scores = replace(reading, tokens=("a", "b", "c"), hidden=hidden).scores(unit="cosine", **view)
    assert scores.iloc[1:].abs().le(1 + 1e-5).all(axis=None)


@pytest.mark.parametrize("layer, metric", product((1, 2, 3, 4), METRICS))
def test_neutral_texts_have_mean_0_and_sd_1(tiny, tiny_vectors, layer, metric):
    offset = tiny_vectors.info["offset"]  # before it a model's attention may sink into a token
    scores = [tiny_vectors.readout(tiny, text).scores(layer=layer, metric=metric)[offset:] for text in NEUTRAL]
    found = pd.concat(scores).agg(["mean", "std"])
    np.testing.assert_allclose(found, [[0] * 3, [1] * 3], atol=0.02)


def test_scores_by_hand_from_transformers_own_hidden_states(tiny, tiny_vectors, reading):
    with torch.no_grad():
        states = tiny.model(torch.tensor([tiny.encode(TEXT)]), output_hidden_states=True).hidden_states
    centred = states[2][0].numpy() - tiny_vectors.neutral_mean[1]  # layer 2 is in row 1
    vector = tiny_vectors["calm"].vectors[0, 1]
    expected = centred[1:] @ vector / np.linalg.norm(vector)
    found = reading.scores("calm", layer=2, metric="vector", unit="raw")["calm"][1:]
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


# --- the table ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", UNITS)
def test_the_table_has_a_row_a_token_and_a_column_an_emotion(reading, unit):
    scores = reading.scores(unit=unit)
    assert tuple(scores.columns) == EMOTIONS
    assert [(place, token.strip()) for place, token in scores.index] == list(enumerate(TEXT.split()))
    assert scores.iloc[0].isna().all() and scores.iloc[1:].notna().all(axis=None)
    chosen = reading.scores(["glad", "afraid"], unit=unit)
    pd.testing.assert_frame_equal(chosen, scores[["glad", "afraid"]], rtol=1e-5)


def test_by_default_the_chosen_layer_and_metric_in_sd(reading, tiny_vectors):
    explicit = reading.scores(None, tiny_vectors.chosen_layer, tiny_vectors.metric, "sd")
    pd.testing.assert_frame_equal(reading.scores(), explicit)


def test_scoring_changes_nothing(reading):
    before = reading.hidden.copy()
    reading.scores(unit="raw")
    np.testing.assert_array_equal(reading.hidden, before)


def test_top_is_the_highest_mean(reading):
    text = planted(reading, "calm", [0, 0, 0, 30, 30], 2, "vector")
    view = {"layer": 2, "metric": "vector", "unit": "raw"}
    assert list(text.top(1, **view).index) == ["calm"]
    assert text.top(3, **view).is_monotonic_decreasing and len(text.top(3, **view)) == 3
    assert text.top(1, **view)["calm"] == pytest.approx(15, rel=1e-3)
    assert text.top(1, slice(3, None), **view)["calm"] == pytest.approx(30, rel=1e-3)


@pytest.mark.parametrize(
    "view, message",
    [
        ({"emotions": "clam"}, "unknown emotion 'clam': did you mean 'calm'"),
        ({"emotions": ["calm", "clam"]}, "unknown emotion 'clam'"),
        ({"unit": "sds"}, "unknown unit 'sds': did you mean 'sd'"),
        ({"metric": "prob"}, "unknown metric 'prob': did you mean 'probe'"),
        ({"layer": 5}, r"layer 5 is not in these vectors: they hold 1\.\.4"),
    ],
    ids=str,
)
def test_views_that_there_are_not(reading, view, message):
    with pytest.raises(el.EmolabError, match=message):
        reading.scores(**view)


def test_the_figure_has_a_track_for_each_emotion(reading):
    labels = {text.get_text() for axes in reading.figure(["calm", "glad"]).axes for text in axes.get_legend().texts}
    assert labels == {"calm", "glad"}


# --- the embedded model ------------------------------------------------------------------------------------------


def test_tokens_are_plain_pieces_of_the_text(subject, shipped):
    text = "<b>Fish & chips</b> cost $5 {here} at 7° 🙂"
    assert "".join(shipped.readout(subject, text).tokens) == text


def test_danger_is_read_as_fear(subject, shipped):
    def change(pair):
        danger, safe = (shipped.readout(subject, subject.chat(pair[kind])).scores() for kind in ("danger", "safe"))
        return danger.mean() - safe.mean()

    changes = pd.DataFrame(map(change, el.prompts("danger_safe")[::4]))  # [pair, emotion]
    fear, calm = (changes[names].mean(axis=1) for names in (FEAR, ["calm", "at ease", "serene"]))
    assert (fear > 0).mean() >= 0.8
    assert (fear > calm).mean() >= 0.8
    assert "terrified" in changes.mean().nlargest(10)
