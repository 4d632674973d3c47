"""Desperation: slopes are what real pushes do, a planted effect is found, and a model that means nothing shows none."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ARCHITECTURES, NEUTRAL, tiny_subject, tiny_text

import emolab as el
from emolab.activations import read
from emolab.experiments import dilemmas as asked
from emolab.experiments import paired
from emolab.experiments.desperation import CONTRAST, desperation
from emolab.experiments.dilemmas import NULLS, POINTS, ask, log_odds, odds_gradients, real_pushes
from emolab.likelihood import continuation_gradients, continuation_logprobs
from emolab.nulls import KINDS, random_directions
from emolab.steering import steer

OWN = [
    {
        "id": f"tiny-{i}",
        "kind": ("blackmail", "cheating")[i % 2],
        "desperate": tiny_text(3 * i, words=22 + i),
        "calm": tiny_text(3 * i + 1, words=22 + i),
        "question": "was it the door",
        "honest": tiny_text(5000 + i, words=6),
        "harmful": tiny_text(6000 + i, words=6),
    }
    for i in range(10)
]


@pytest.fixture(scope="module", autouse=True)
def few_draws():
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((paired, "DRAWS"), (paired, "DIRECTIONS"), (asked, "DIRECTIONS")):
            patch.setattr(module, name, 300)
        yield


@pytest.fixture(scope="module")
def model():
    return tiny_subject(max_position_embeddings=512)


@pytest.fixture(scope="module")
def vectors(model, tmp_path_factory):
    emotions = ("desperate", "calm", "afraid", "glad", "proud", "sad")
    stories = [
        el.Story(name, tiny_text(10 * n + part), f"p{part}") for n, name in enumerate(emotions) for part in range(4)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMOLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        return el.extract(model, stories, held_out=el.HeldOut(), neutral=NEUTRAL, progress=False)


@pytest.fixture(scope="module")
def result(model, vectors):
    return desperation(model, vectors, dilemmas=OWN, steered=4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradients_are_what_small_pushes_do(architecture, vectors):
    """Against pushes really made, one text at a time, on the same tokens only."""
    subject = tiny_subject(architecture)
    fitting = replace(vectors, info=vectors.info | {"weights": subject.weight_sample})
    prompts, ends = [tiny_text(1, 12), tiny_text(2, 20), tiny_text(3, 9)], [" warm light", " dog", " cold night rain"]
    where = [slice(3, 8), slice(1, 20), slice(8, 9)]
    found, gradients = continuation_gradients(subject, prompts, ends, 2, where)
    assert found == pytest.approx(continuation_logprobs(subject, prompts, ends), abs=1e-4)
    direction = np.random.default_rng(1).standard_normal(subject.d_model)
    direction /= np.linalg.norm(direction)
    norm = np.linalg.norm(read(subject, prompts[0], [2])[0], axis=1).mean()  # architectures differ a hundredfold
    size = 0.01 * norm / fitting.residual_norm[fitting.row(2)]  # steering counts in those of its vectors
    for i, (prompt, end, place) in enumerate(zip(prompts, ends, where, strict=True)):
        ways = []
        for sign in (1, -1):
            with steer(subject, fitting, sign * size * direction, layers=2, positions=place):
                ways.append(continuation_logprobs(subject, [prompt], [end])[0])
        assert norm * gradients[i] @ direction == pytest.approx((ways[0] - ways[1]) / 0.02, rel=0.02, abs=2e-3)
    assert np.abs(norm * gradients @ direction).max() > 0.02


def test_gradients_leave_no_trace_and_refuse_a_wrong_layer(model):
    hooks = sum(len(module._forward_hooks) for module in model.model.modules())
    continuation_gradients(model, ["the dog"], [" ran"], 1, [slice(1, 2)])
    assert hooks == sum(len(module._forward_hooks) for module in model.model.modules()) and torch.is_grad_enabled()
    with pytest.raises(el.EmolabError, match=r"layer 9"):
        continuation_gradients(model, ["the dog"], [" ran"], 9, [slice(1, 2)])


def test_the_pushed_tokens_are_those_of_the_story(model):
    text, story = ask(model, OWN[0], "desperate")
    spans = model.spans(text)
    assert text[spans[story.start][0] : spans[story.stop - 1][1]].strip() in OWN[0]["desperate"]
    assert story.stop - story.start >= len(OWN[0]["desperate"].split()) - 1  # all but token 0
    assert text.endswith(OWN[0]["question"] + " ")


def test_log_odds_are_those_of_the_two_sentences(model, result):
    for i, dilemma in enumerate(OWN[:3]):
        for version in ("desperate", "calm"):
            text, _ = ask(model, dilemma, version)
            honest, harmful = continuation_logprobs(model, [text] * 2, [dilemma["honest"], dilemma["harmful"]])
            assert result.odds[version].iloc[i] == pytest.approx(harmful - honest, abs=1e-3)
    assert result.odds["calm"].to_numpy() == pytest.approx(log_odds(model, OWN, "calm"))


def test_slopes_are_the_limit_of_steering(model, vectors, result, monkeypatch):
    monkeypatch.setattr(asked, "STRENGTH", 0.01)
    pushed = real_pushes(model, vectors, OWN, result.slopes, result.layer)
    assert len(pushed) == len(OWN) * 4
    assert np.corrcoef(pushed.change, pushed.expected)[0, 1] > 0.98
    assert np.polyfit(pushed.expected, pushed.change, 1)[0] == pytest.approx(1, abs=0.1)


def planted(model, vectors, sign: int):
    """Vectors whose desperate points where pushes really made raise the log-odds, and whose calm points away."""
    layer, row = 2, vectors.row(2)
    slope = np.zeros(model.d_model)
    for axis in range(model.d_model):
        step = np.eye(model.d_model)[axis] * 0.02
        for dilemma in OWN:
            text, story = ask(model, dilemma, "desperate")
            with steer(model, vectors, step, layers=layer, positions=story):
                honest, harmful = continuation_logprobs(model, [text] * 2, [dilemma["honest"], dilemma["harmful"]])
            slope[axis] += (harmful - honest) / len(OWN)
    base = log_odds(model, OWN, "desperate").mean()
    changed = vectors.vectors.copy()
    for name, way in (("desperate", sign), ("calm", -sign)):
        changed[vectors.index(name), row] = way * (slope - base)
    return replace(vectors, vectors=changed)


@pytest.mark.parametrize(("sign", "verdict"), [(1, "replicates"), (-1, "does not replicate")])
def test_a_planted_effect_is_found_with_its_sign(model, vectors, sign, verdict):
    found = desperation(model, planted(model, vectors, sign), dilemmas=OWN, steered=2)
    effect = found.claims()[2]
    assert effect.verdict == verdict and np.sign(effect.value) == sign
    table = found.table()
    assert (np.sign(table.loc[["desperate", "less calm"], "value"].loc[:, "all"]) == sign).all()
    assert verdict in found.verdict()


def test_a_model_that_means_nothing_replicates_nothing(result):
    assert "replicates" not in [claim.verdict for claim in result.claims()]


def test_table_and_claims_say_the_same(result):
    table, (up, down, effect, rates) = result.table(), result.claims()
    values = (result.slopes["desperate"] - result.slopes["calm"]).to_numpy()
    assert table.loc[(CONTRAST, "all"), "value"] == pytest.approx(values.mean())
    assert table.loc[(CONTRAST, "cheating"), "value"] == pytest.approx(values[1::2].mean())
    assert effect.value == pytest.approx(values.mean() / 10) and effect.low < effect.value < effect.high
    assert effect.null == pytest.approx(table.loc[(CONTRAST, "all"), list(NULLS)].max() / 10)
    assert (table.low <= table.value).all() and (table.value <= table.high).all()
    assert up.value == result.reading.loc["desperate", "share"] and down.value == result.reading.loc["calm", "share"]
    assert rates.verdict == "not testable on this model" and "log-odds" in rates.reason + effect.statistic
    assert "not behaviour" in result.verdict()


def test_the_readout_is_that_of_the_stories(model, vectors, result):
    assert result.tracks.shape == (2, len(OWN), POINTS, 2)
    text, story = ask(model, OWN[4], "calm")
    scores = vectors.readout(model, text).scores(["desperate", "calm"]).to_numpy()[story]
    assert result.tracks[1, 4, 0] == pytest.approx(scores[: len(scores) // POINTS].mean(0), abs=1e-3)
    gaps = []
    for dilemma in OWN:
        both = [ask(model, dilemma, version) for version in ("desperate", "calm")]
        means = [vectors.readout(model, text).scores("desperate").to_numpy()[story].mean() for text, story in both]
        gaps.append(means[0] - means[1])
    assert result.reading.loc["desperate", "change"] == pytest.approx(np.mean(gaps), abs=1e-3)
    assert result.reading.loc["desperate", "share"] == np.mean(np.array(gaps) > 0)


def test_null_slopes_are_those_of_random_directions(model, vectors, result):
    _, gradients = odds_gradients(model, OWN, "desperate", result.layer)
    scaled = gradients * vectors.residual_norm[vectors.row(result.layer)]
    unit = vectors.vectors[0, vectors.row(result.layer)]
    assert result.slopes.iloc[:, 0].to_numpy() == pytest.approx(scaled @ unit / np.linalg.norm(unit), rel=1e-3)
    for name, kind in zip(NULLS, KINDS[1:], strict=False):
        drawn = random_directions(model, vectors, result.layer, 300, kind)
        assert result.nulls[name] == pytest.approx(drawn @ scaled.T, rel=1e-3, abs=1e-4)
    assert result.nulls[NULLS[2]].shape == (6 * 5 // 2 - 1, len(OWN))  # all pairs but desperate and calm


def test_figure_has_four_panels(result):
    assert len(result.figure().axes) == 4


def test_rollouts_are_raw_and_pushed(model, vectors):
    found = asked.sample_replies(model, vectors, OWN[:2], 2, strength=3.0, tokens=5)
    assert len(found) == 2 * 5 * 2 and np.isfinite(found.log_odds).all()
    plain, pushed = (found[found.push == name].text.tolist() for name in ("none", "desperate"))
    assert plain != pushed[:4] and all(pushed)
    again = asked.sample_replies(model, vectors, OWN[:2], 2, strength=3.0, tokens=5)
    assert again.text.tolist() == found.text.tolist()


def test_bad_input(model, vectors):
    with pytest.raises(el.EmolabError, match="at least two dilemmas"):
        desperation(model, vectors, dilemmas=OWN[:1])
    with pytest.raises(el.EmolabError, match="harmful"):
        desperation(model, vectors, dilemmas=[{k: v for k, v in one.items() if k != "harmful"} for one in OWN])
    with pytest.raises(el.EmolabError, match="evidence"):
        desperation(model, vectors[["desperate", "calm"]], dilemmas=OWN)


def test_on_the_embedded_model_desperate_stories_read_as_desperate(subject, shipped):
    found = desperation(subject, shipped, dilemmas=el.prompts("dilemmas")[::22], steered=2)
    assert found.reading.loc["desperate", "change"] > 0 > found.reading.loc["calm", "change"]
    assert found.agreement() > 0.7 and "By kind" not in found.verdict()  # a single dilemma of each kind
    assert found.slopes.shape == (3, len(shipped)) and len(found.kinds) == 3
