"""A concept of one's own: planted truths come out, emotions left out lie beside themselves, bad input is refused."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import NEUTRAL, tiny_text

import emolab as el
from emolab import authoring, likeness
from emolab.authoring import fault, stem
from emolab.concepts import ELSEWHERE, LIES, NOTHING, OWN, UNKNOWN, UNTESTED
from emolab.likeness import common, main_directions, share, validation


@pytest.fixture(scope="module")
def discipline(subject, shipped):
    rows = [row for row in el.prompts("concepts") if row["emotion"] == "disciplined"]
    return el.concept(subject, "disciplined", [el.Story(r["emotion"], r["text"], r["part"]) for r in rows], shipped)


@pytest.fixture(scope="module")
def plain(subject, shipped):
    """One emotion's stories by other authors in another genre, without settings that the corpus knows."""
    return el.concept(subject, "alarmed", el.stories("implicit_second", ["alarmed"]), shipped, layers=[20])


def with_points(concept, points):
    return replace(concept, points=points)


# --- the arithmetic ------------------------------------------------------------------------------------------------


def test_shared_length_and_share_are_free_of_noise():
    rng = np.random.default_rng(0)
    truth = np.r_[3.0, 4.0, np.zeros(198)]
    axes = np.eye(200)[:1]
    draws = [truth + rng.standard_normal((8, 200)) for _ in range(200)]
    assert np.mean([common(texts) for texts in draws]) == pytest.approx(25, abs=1)
    assert np.median([share(texts, axes) for texts in draws]) == pytest.approx(9 / 25, abs=0.03)
    assert np.linalg.norm(draws[0].mean(0)) ** 2 > 40  # what noise would have made of it


def test_main_directions_are_those_of_pca():
    points = np.random.default_rng(0).standard_normal((30, 50)) * np.linspace(3, 0.1, 50)
    axes = main_directions(points, 0.6)
    np.testing.assert_allclose(axes @ axes.T, np.eye(len(axes)), atol=1e-8)
    held = np.linalg.svd(points - points.mean(0), compute_uv=False) ** 2
    assert (held[: len(axes)].sum() / held.sum() >= 0.6) and held[: len(axes) - 1].sum() / held.sum() < 0.6


def test_space_turns_the_metric_into_the_dot_product(shipped):
    found = likeness.space(shipped)
    cosines = shipped.cosines().to_numpy()
    points = found.points / np.linalg.norm(found.points, axis=1, keepdims=True)
    np.testing.assert_allclose(points @ points.T, cosines, atol=0.01)
    probes = found.probe(found.points[:5])
    np.testing.assert_allclose(probes, shipped.directions()[:5], atol=0.01 * np.abs(probes).max())


# --- validation ----------------------------------------------------------------------------------------------------


def test_an_emotion_by_others_comes_out_beside_itself(shipped):
    by_others, against = validation(shipped), validation(shipped, centring="contrast")
    halves = validation(shipped, "train")
    assert len(by_others) == 32 and len(halves) == 171
    assert (by_others["rank"] <= 5).mean() > 0.6 and (by_others["rank"] == 1).mean() > 20 / 171
    assert (against["rank"] == 1).mean() > (by_others["rank"] == 1).mean()  # contrast texts take the genre out
    assert (halves["rank"] == 1).mean() > 0.95 and halves.cosine.median() > 0.6
    assert (halves.nearest == halves.index).mean() > 0.95


def test_a_concept_made_of_an_emotions_stories_finds_it(plain):
    assert plain.centring == "genre" and plain.name == "alarmed" + OWN
    assert plain.nearest(1).index[0] == "alarmed"
    assert plain.likeness.standing == LIES  # told by strangers, it is where emotions are
    assert "hold 'alarmed' already" in plain.verdict() and "author and genre" in plain.verdict()


# --- the standing --------------------------------------------------------------------------------------------------


def test_discipline_has_a_place_and_says_it(discipline):
    table, found = discipline.nearest(), discipline.likeness
    assert discipline.centring == "parts" and not discipline.notes
    assert (table.low < table.cosine).all() and (table.cosine < table.high).all() and len(table) == 10
    assert found.ceiling < found.floor < found.emotions  # non-emotions lie elsewhere than left-out emotions
    assert found.low < found.share < found.high and found.standing in discipline.verdict()
    assert discipline.quality().median_rank < 5 < discipline.quality().null_median_rank
    assert discipline.quality().false_alarms < 0.05
    norms = discipline.norms(draws=20)
    assert list(norms.index) == ["pleasure", "arousal", "dominance"] and (norms.low < norms.high).all()


def test_the_standing_tells_an_emotion_a_setting_and_noise_apart(discipline, shipped):
    space, train = discipline.space, shipped.evidence.train
    proud = space.centred(train.means[train.emotions == "proud"], "parts", train.parts[train.emotions == "proud"])
    spread = np.random.default_rng(0).permutation(np.flatnonzero(train.parts == "c01"))[:12]
    letters = space.seen(train.means[spread])
    noise = space.seen(train.means[np.random.default_rng(1).permutation(len(train))[:12]])
    noise = noise - noise.mean(0)
    assert with_points(discipline, proud).likeness.standing == LIES
    assert with_points(discipline, letters).likeness.standing == ELSEWHERE
    unknown = replace(discipline, points=letters, centring="genre", parts=())
    assert unknown.likeness.standing == UNKNOWN  # a manner may hide an emotion: what is not seen is not denied
    assert with_points(discipline, noise).likeness.standing == NOTHING


def test_the_map_has_it_and_the_figure_shows_it(discipline):
    places = discipline.map()
    assert len(places) == 172 and places.index[-1] == "disciplined" and np.isfinite(places[["x", "y"]]).all().all()
    assert len(discipline.figure().axes) == 4


# --- joined --------------------------------------------------------------------------------------------------------


def test_joined_vectors_read_steer_and_save(discipline, subject, tmp_path):
    joined = discipline.joined()
    assert (
        len(joined) == 172 and list(joined.emotions) == sorted(joined.emotions) and joined.layers == (*range(15, 21),)
    )
    near = joined.nearest("disciplined", 5)
    expected = discipline.nearest(5)
    assert list(near.index) == list(expected.index)
    np.testing.assert_allclose(near, expected.cosine, atol=0.02)
    kept = joined.index("calm"), discipline.vectors.index("calm")
    np.testing.assert_array_equal(joined.probes[kept[0], -1], discipline.vectors.probes[kept[1], 19])

    again = el.load_vectors(joined.save(tmp_path / "own.safetensors"))
    reading = again.readout(subject, discipline.texts[1])
    assert "disciplined" in reading.top(8).index
    assert reading.scores("disciplined", layer=15).iloc[1:].notna().all().all()
    quiet = again.readout(subject, el.neutral()[0]).scores("disciplined")
    assert abs(quiet.mean().item()) < 1 and 0.3 < quiet.std().item() < 3

    with el.steer(subject, again, {"disciplined": 0.4}):
        pushed = again.readout(subject, el.neutral()[1]).scores("disciplined", layer=15).mean().item()
    assert pushed > again.readout(subject, el.neutral()[1]).scores("disciplined", layer=15).mean().item() + 0.5


def test_joined_vectors_can_be_judged(discipline):
    train = discipline.joined().evidence.train
    own = train[train.emotions == "disciplined"]
    assert len(train) == 2064 and set(own.parts) == set(discipline.parts)
    points = discipline.space.centred(own.means, "parts", own.parts)
    np.testing.assert_allclose(points, discipline.points, atol=0.05)


def test_contrast_texts_take_out_what_they_share(subject, shipped):
    rows = {
        name: [r["text"] for r in el.prompts("concepts") if r["emotion"] == name] for name in ("curious", "confused")
    }
    found = el.concept(subject, "curious", rows["curious"], shipped, contrast=rows["confused"], layers=[20])
    assert found.centring == "contrast" and found.layers == (20,)
    plain = el.concept(subject, "curious", rows["curious"], shipped, layers=[20])
    cosines = [c.nearest(171).cosine["bewildered"] for c in (found, plain)]
    assert cosines[0] < cosines[1] - 0.2  # what both are, is gone


# --- a model that knows nothing, and bad input ---------------------------------------------------------------------


def own_texts(n: int = 6) -> list[str]:
    return [tiny_text(500 + seed, words=40) for seed in range(n)]


def test_random_weights_get_no_standing(tiny, tiny_vectors):
    found = el.concept(tiny, "mine", own_texts(), tiny_vectors, neutral=NEUTRAL)
    assert found.likeness.standing in (UNTESTED, NOTHING)
    assert len(found.joined()) == 4 and "few emotions" in found.verdict()


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (own_texts(5), "at least 6 different texts"),
        ([own_texts(1)[0]] * 8, "of which 1 differ"),
        ([*own_texts(), "night"], "text 6 has 1 tokens and needs 30"),
        ([*own_texts(), ""], "text 6: the text is empty"),
        ([*own_texts(), "sun " * 500], "text 6: the text has 500 tokens"),
        ("one long text", "list of strings"),
        ([*own_texts(), 3], "list of strings"),
        (None, "or a description"),
    ],
)
def test_bad_texts_are_refused_with_a_remedy(tiny, tiny_vectors, texts, message):
    with pytest.raises(el.EmolabError, match=message):
        el.concept(tiny, "mine", texts, tiny_vectors, neutral=NEUTRAL)


def test_other_bad_input(tiny, tiny_vectors, shipped):
    with pytest.raises(el.EmolabError, match="needs a name"):
        el.concept(tiny, " ", own_texts(), tiny_vectors)
    with pytest.raises(el.EmolabError, match="evidence"):
        el.concept(tiny, "mine", own_texts(), tiny_vectors[["calm", "glad"]])
    with pytest.raises(el.EmolabError, match="made for"):
        el.concept(tiny, "mine", own_texts(), shipped)
    with pytest.raises(el.EmolabError, match="no vectors are shipped"):
        el.concept(tiny, "mine", own_texts())
    with pytest.raises(el.EmolabError, match="set of texts"):
        validation(shipped, "tset")


# --- stories by the model itself -----------------------------------------------------------------------------------


def test_the_embedded_model_is_refused_with_a_reason(subject, shipped):
    with pytest.raises(el.EmolabError, match=r"can't write usable stories.*needed.*6 to 20 short texts"):
        el.concept(subject, "disciplined", vectors=shipped, description="keeps to what was decided before")


def test_a_tiny_model_is_refused(tiny, tiny_vectors):
    with pytest.raises(el.EmolabError, match="6 to 20 short texts yourself"):
        el.concept(tiny, "mine", vectors=tiny_vectors, description="keeps to what was decided")
    with pytest.raises(el.EmolabError, match="describe the state"):
        el.concept(tiny, "mine", vectors=tiny_vectors, description="dutiful")


def test_a_model_that_can_write_is_used_and_leaks_are_filtered(subject, shipped, monkeypatch):
    """Planted: a writer that returns the corpus' own held-out stories passes the trial."""
    own = [row["text"] for row in el.prompts("concepts") if row["emotion"] == "disciplined"]

    def writer(_subject, descriptions, _seed):
        by_sense = {el.senses()[name]: name for name in authoring.TRIED}
        if descriptions[0] in by_sense:
            return [el.stories("implicit", [by_sense[sense]])[i % 2].text for i, sense in enumerate(descriptions)]
        return [*own[:7], *(f"{text} So disciplined." for text in own[7:])]

    monkeypatch.setattr(authoring, "_stories", writer)
    found = el.concept(subject, "disciplined", vectors=shipped, description="keeps to a plan", layers=[20])
    assert found.texts == tuple(own[:7]) and found.centring == "genre"
    with pytest.raises(el.EmolabError, match=r"only 0 of 12 .*says the word"):
        el.concept(subject, "the", vectors=shipped, description="keeps to a plan", layers=[20])


@pytest.mark.parametrize(
    ("text", "wrong"),
    [("a short one", "too short"), ("he ran home " * 30, "repeats itself"), (" ".join(map(str, range(60))), "")],
)
def test_faults_of_stories(text, wrong):
    assert fault(text, "calm") == wrong
    assert stem("confused") == stem("confusing") == "confus"
