"""The quality report and the geometry, on the shipped vectors (truth) and on planted ones."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from sklearn.decomposition import PCA

import emolab as el
from emolab.directions import Labelled
from emolab.geometry import cosine_order, norm_table, principal_components, rsa
from emolab.quality import shuffled, split_half, with_interval


@pytest.fixture(scope="module")
def quality(shipped):
    return shipped.quality()


@pytest.fixture(scope="module")
def geometry(shipped):
    return shipped.geometry()


def test_the_vectors_identify_stories_far_above_nulls_and_words(quality):
    probe, words = quality.row("choose"), quality.row("choose", "words")
    assert quality.metric == "probe"
    assert probe.top1 > 0.70 and probe.top5 > 0.88 and probe.median_rank == 1
    assert words.top1 > 0.5  # words alone do well, and the model does better
    assert (quality.gain.loc[["implicit stories", "second authors"], "low"] > 0).all()
    assert quality.nulls["max"].max() < 0.03
    assert quality.row("test", "words").top1 > 0.1
    assert quality.row("train", "probe").top1 > 0.99
    assert quality.split_half.mean() > 0.7 and abs(quality.split_half_null) < 0.05


def test_the_report_reads_well(quality):
    said = quality.verdict()
    assert f"layer {quality.layer}" in said and f"{quality.row('choose').top1:.0%}" in said
    assert "adds what words alone do not give" in said
    assert "null" in quality.table().index.get_level_values(0)
    figure = quality.figure()
    assert [axes.get_title() for axes in figure.axes]


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    emotions = np.repeat([f"e{i}" for i in range(60)], 6)
    inside = 0
    for _ in range(200):
        chance = np.repeat(rng.beta(3, 3, 60), 6)  # emotions differ, so their texts hang together
        row = with_interval(rng.random(360) < chance, emotions, rng)
        inside += row["low"] <= 0.5 <= row["high"]
    assert 0.88 <= inside / 200 <= 0.99


def test_shuffling_keeps_settings_and_counts():
    emotions, parts = np.tile(list("abc"), 20), np.repeat(list("uvwx"), 15)
    texts = Labelled(np.arange(60)[:, None], emotions, parts)
    other = shuffled(texts, np.random.default_rng(0))
    assert (other.emotions != emotions).any()
    for part in "uvwx":
        assert sorted(other.emotions[parts == part]) == sorted(emotions[parts == part])


def test_split_halves_agree_only_where_there_is_something():
    rng = np.random.default_rng(0)
    emotions, parts = np.repeat([f"e{i}" for i in range(10)], 8), np.tile(list("abcdefgh"), 10)
    signal = np.repeat(rng.standard_normal((10, 20)), 8, axis=0)
    noise = rng.standard_normal((80, 20))
    real, null = split_half(Labelled(signal + 0.3 * noise, emotions, parts), rng)
    nothing, _ = split_half(Labelled(noise, emotions, parts), rng)
    assert real.mean() > 0.9 and abs(null) < 0.2 and abs(nothing.mean()) < 0.3


def test_a_selection_has_no_quality_report(shipped):
    with pytest.raises(el.EmolabError, match="not a selection"):
        shipped[["calm", "afraid"]].quality()


def test_human_ratings_of_words_left_out_are_predicted(geometry):
    norms = geometry.norms
    assert norms.loc["pleasure", "cv_r"] > 0.7 and norms.loc["arousal", "cv_r"] > 0.6
    assert (norms.cv_low > norms.cv_null).all()
    assert norms.loc["pleasure", "best_pc_r"] > 0.7 > norms.loc["pleasure", "best_pc_null"]
    assert "pleasure" in geometry.verdict()


def test_without_signal_the_norm_table_stays_within_its_null():
    within = []
    for seed in range(12):
        points = np.random.default_rng(seed).standard_normal((171, 30))
        table = norm_table(points, principal_components(points)[0], el.emotions(), seed)
        within += [*(table.cv_r <= table.cv_null), *(table.best_pc_r <= table.best_pc_null)]
    assert np.mean(within) > 0.85


def test_neighbours_on_the_map_are_neighbours_in_the_model(geometry):
    x = geometry.points[["x", "y"]].to_numpy()
    near = np.argsort(((x[:, None] - x) ** 2).sum(-1), 1)[:, 1:6]
    cosines = geometry.cosines.to_numpy()
    close = np.take_along_axis(cosines, near, 1).mean()
    assert close > np.quantile(cosines[np.triu_indices(171, 1)], 0.85)
    assert geometry.points.cluster.nunique() == 10


def test_the_map_is_the_same_every_time(shipped, geometry):
    pd.testing.assert_frame_equal(shipped.geometry().points, geometry.points)


def test_components_are_those_of_scikit_learn(shipped):
    points = shipped.coordinates(metric="vector")
    ours, share = principal_components(points)
    theirs = PCA(10, svd_solver="full").fit(points)
    np.testing.assert_allclose(share, theirs.explained_variance_ratio_, rtol=1e-6)
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs.transform(points)), atol=1e-6 * np.abs(ours).max().max())


def test_coordinates_have_the_products_of_the_metric(shipped):
    from emolab.directions import fit

    fitted = fit(shipped.evidence.train)
    truth = fitted.vectors @ np.linalg.solve(fitted.metric, fitted.vectors.T)
    points = shipped.coordinates(metric="probe")
    np.testing.assert_allclose(points @ points.T, truth, atol=0.02 * np.abs(truth).max())


def test_order_puts_the_alike_together(geometry):
    cosines = geometry.cosines.loc[geometry.order, geometry.order].to_numpy()
    assert sorted(geometry.order) == sorted(el.emotions())
    assert np.diag(cosines, 1).mean() > geometry.cosines.to_numpy()[np.triu_indices(171, 1)].mean() + 0.15
    assert cosine_order(geometry.cosines) == geometry.order


def test_layers_are_compared_by_rank_correlation(shipped):
    table = rsa(shipped, [5, 15, 25], metric="vector")
    triangle = np.triu_indices(171, 1)
    a, b = (shipped.cosines(layer, "vector").to_numpy()[triangle] for layer in (5, 25))
    assert table.loc[5, 25] == pytest.approx(spearmanr(a, b).statistic)
    assert rsa(shipped, [15, 25]).loc[15, 25] > 0.6


def test_too_few_emotions_for_a_map(shipped):
    with pytest.raises(el.EmolabError, match="at least five"):
        shipped[["calm", "afraid"]].geometry()
    small = shipped[["calm", "afraid", "happy", "sad", "angry", "proud", "tired"]].geometry()
    assert small.norms.empty and "Too few" in small.verdict()


def test_nearest_are_relatives(shipped):
    assert {"serene", "peaceful"} <= set(shipped.nearest("calm", 5).index)
    assert {"frightened", "terrified"} <= set(shipped.nearest("afraid", 5).index)
