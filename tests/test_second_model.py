"""The truth on a second real model, of another maker and architecture: Gemma 3 270M, where it has been fetched."""

import numpy as np
import pytest

import emolab as el
from emolab.agreement import BEYOND, OTHER, SAME
from emolab.embedded import here
from emolab.likelihood import continuation_logprobs

NAME = "gemma-3-270m"
pytestmark = pytest.mark.skipif(not here(NAME), reason=f"{NAME} is not here: emolab model get {NAME}")

FEW = (
    "afraid", "angry", "ashamed", "bored", "calm", "content", "depressed", "disgusted", "excited", "grateful", "happy",
    "lonely", "nervous", "proud", "sad", "surprised",
)  # fmt: skip
LAYERS = (9, 10, 11)


@pytest.fixture(scope="module")
def gemma() -> el.Subject:
    return el.load(NAME)


@pytest.fixture(scope="module")
def vectors(gemma, tmp_path_factory) -> el.EmotionVectors:
    """Vectors of a few emotions from eight settings of the open stories, at three layers."""
    parts = sorted({story.part for story in el.stories()})[::3] + sorted({story.part for story in el.stories()})[1::3]
    stories = [story for story in el.stories(emotions=FEW) if story.part in parts]
    held_out = el.HeldOut([story for story in el.HeldOut.shipped(4).choose if story.emotion in FEW])
    with pytest.MonkeyPatch.context() as patch:  # finished work stays out of the reader's cache; the model is loaded
        patch.setenv("EMOLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        return el.extract(gemma, stories, layers=LAYERS, held_out=held_out, neutral=el.neutral()[::8], progress=False)


def test_it_is_a_base_model_of_its_own_kind(gemma):
    assert (gemma.n_layers, gemma.d_model, gemma.config.model_type) == (18, 640, "gemma3_text")
    assert gemma.chat("Hello") == "Hello" and "no chat template" in gemma.plain
    prompt = "She opened the letter and began to"
    likely, odd = continuation_logprobs(gemma, [prompt] * 2, [" read", " swim"])
    assert likely > odd + 3  # the weights came through the conversion


def test_stories_are_identified_and_raw_cosine_is_ruled_by_a_massive_coordinate(vectors):
    quality = vectors.quality()
    probe, words = quality.row("choose", "probe"), quality.row("choose", "words")
    assert vectors.metric == "probe"
    assert probe.top1 > words.top1 - 0.05 and probe.top1 > 0.7 > 4 * quality.nulls["max"].max()
    means = vectors.evidence.choose.means
    share = means.var(0) / means.var(0).sum()
    assert share.max() > 0.3  # what tests/test_massive.py plants
    assert quality.row("choose", "vector").top1 < probe.top1 - 0.1


def test_danger_is_read_and_safety_is_not(gemma, vectors):
    scores = [
        vectors.readout(gemma, text).scores(["afraid", "calm"]).iloc[5:].mean()
        for text in (el.prompts("danger_safe")[0][kind] for kind in ("danger", "safe"))
    ]
    assert scores[0].afraid > scores[1].afraid and scores[0].calm < scores[1].calm


def test_it_agrees_with_the_shipped_model_more_than_chance(vectors, shipped):
    found = el.compare(vectors, shipped)
    rows = found.rows
    assert found.models == (NAME, el.DEFAULT) and len(found.by_emotion) == len(FEW)
    assert rows.rho[SAME] > rows.null[SAME] and rows.low[SAME] > 0
    assert rows.rho[OTHER] > rows.null[OTHER]
    assert BEYOND not in rows.index or np.isfinite(rows.rho[BEYOND])
