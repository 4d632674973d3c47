"""`extract()`: from stories to vectors, on tiny models and on the embedded one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import WORDS, tiny_subject

import emolab as el
from emolab.activations import mean_activations
from emolab.data import survey
from emolab.merging import merge

NEUTRAL = [" ".join(np.random.default_rng(i).choice(WORDS, 30)) for i in range(6)]


def stories(emotions, parts="abcd", seed=0):
    """Each emotion prefers some words."""
    rng = np.random.default_rng(seed)
    found = []
    for i, emotion in enumerate(emotions):
        liked = np.full(len(WORDS), 0.2)
        liked[4 * i % len(WORDS) : 4 * i % len(WORDS) + 4] = 6
        for part in parts:
            found.append(el.Story(emotion, " ".join(rng.choice(WORDS, 40, p=liked / liked.sum())), part))
    return found


EMOTIONS = ["afraid", "angry", "calm", "happy", "sad", "tired"]
STORIES = stories(EMOTIONS)


def make(subject, texts=STORIES, **options):
    options = {"held_out": el.HeldOut(stories(EMOTIONS, "ef", seed=1)), "neutral": NEUTRAL, "progress": False} | options
    return el.extract(subject, texts, **options)


def test_vectors_are_differences_of_means_and_everything_has_its_shape(tiny, cache):
    vectors = make(tiny)
    read = mean_activations(tiny, [s.text for s in STORIES], progress=None).means.reshape(6, 4, 4, 32)
    by_emotion = read.mean(1)  # [emotion, layer, d_model]
    np.testing.assert_allclose(vectors.vectors, by_emotion - by_emotion.mean(0), atol=1e-5)
    np.testing.assert_allclose(vectors.mean, by_emotion.mean(0), atol=1e-5)
    assert vectors.emotions == tuple(EMOTIONS) and vectors.layers == (1, 2, 3, 4)
    assert vectors.vectors.shape == vectors.probes.shape == (6, 4, 32)
    assert vectors.vectors.dtype == vectors.probes.dtype == np.float32
    assert vectors.neutral_sd.shape == (2, 6, 4) and (vectors.neutral_sd > 0).all()
    assert (vectors.counts == 4).all() and vectors.residual_norm.shape == (4,)
    assert vectors.evidence.layer == vectors.chosen_layer
    assert vectors.info["n_stories"] == 24 and vectors.info["offset"] == 10


def test_layers_offset_and_pooling_do_what_they_say(tiny, cache):
    some = make(tiny, layers=[2, 4])
    every = make(tiny)
    np.testing.assert_array_equal(some.vectors, every.vectors[:, [1, 3]])
    later = make(tiny, offset=15)
    assert not np.allclose(later.vectors, every.vectors)
    uneven = [*STORIES[:-1], el.Story("tired", " ".join(STORIES[-1].text.split()[:25]), STORIES[-1].part)]
    assert not np.allclose(make(tiny, uneven).vectors, make(tiny, uneven, pooling="token").vectors)
    np.testing.assert_allclose(make(tiny, pooling="token").vectors, every.vectors, atol=1e-5)  # equal lengths


def test_denoising_takes_the_neutral_components_out(tiny, cache):
    plain = make(tiny)
    clean = make(tiny, denoise=True)
    np.testing.assert_allclose(clean.vectors, plain.denoised().vectors)
    along = np.einsum("eld,lcd->elc", clean.vectors, clean.neutral_components)
    assert np.abs(along).max() < 1e-4 < np.abs(clean.vectors - plain.vectors).max()
    assert clean.denoised() is clean


def test_the_layer_is_chosen_on_held_out_stories_and_the_file_says_so(tiny, cache):
    vectors = make(tiny)
    assert set(vectors.info["profile"]) == {"layer", "vector", "probe"}
    assert "held-out" in vectors.info["layer_rule"]
    alone = make(tiny, held_out=el.HeldOut())
    assert "left out in turn" in alone.info["layer_rule"]
    assert alone.evidence.choose is None and alone.evidence.test is None


def test_merging_equals_reading_together(tiny, cache):
    layer = 3
    together = make(tiny, layers=[layer])
    first = make(tiny, STORIES[:12], layers=[layer], held_out=el.HeldOut(stories(EMOTIONS[:3], "ef", seed=1)))
    second = make(tiny, STORIES[12:], layers=[layer], held_out=el.HeldOut(stories(EMOTIONS[3:], "ef", seed=1)))
    both = first.merge(second)
    assert both.emotions == together.emotions
    np.testing.assert_allclose(both.vectors, together.vectors, atol=1e-4)
    np.testing.assert_allclose(both.probes, together.probes, rtol=1e-2, atol=1e-3)
    assert (both.counts == together.counts).all()
    np.testing.assert_allclose(both.quality().split_half, together.quality().split_half, atol=1e-3)


def test_what_can_not_be_merged(tiny, cache):
    other = make(tiny_subject(seed=1))
    with pytest.raises(el.EmolabError, match="two models"):
        merge(make(tiny), other)
    with pytest.raises(el.EmolabError, match=r"layers=\[2\]"):
        merge(make(tiny, layers=[2]), make(tiny, layers=[3]))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"texts": STORIES[:4]}, "at least two"),
        ({"pooling": "tokens"}, "did you mean 'token'"),
        ({"layers": [9]}, r"1\.\.4"),
        ({"texts": "nowhere.jsonl"}, "there is no file"),
        ({"texts": [*STORIES, el.Story("sad", "the dog", "a")]}, "text 24 has 2 tokens"),
    ],
)
def test_bad_input_is_named(tiny, cache, options, says):
    with pytest.raises(el.EmolabError, match=says):
        make(tiny, **options)


def test_a_second_process_on_the_same_extraction_is_told_to_wait(tiny, cache):
    from emolab.extraction import _workshop

    work = (tiny, survey(STORIES), el.HeldOut(), (1, 2), 10, "story")
    with _workshop(*work), pytest.raises(el.EmolabError, match="another process"), _workshop(*work):
        pass


KILLED = """
import os, signal
from test_extraction import make, tiny_subject
from emolab import activations, workshop
activations.token_budget = lambda subject: 100
finish = workshop.Store.finish
done = []
def counted(store, batch):
    finish(store, batch)
    done.append(batch)
    print(len(done), flush=True)
    if len(done) == int(os.environ["STOP_AFTER"]):
        os.kill(os.getpid(), signal.SIGKILL)
workshop.Store.finish = counted
vectors = make(tiny_subject())
vectors.save(os.environ["OUT"])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_killed_and_started_again_gives_the_same_bits_and_reads_nothing_twice(tmp_path):
    def go(out, stop_after, cache):
        there = {"STOP_AFTER": str(stop_after), "OUT": str(out), "EMOLAB_CACHE": str(cache)}
        path = {"PYTHONPATH": str(Path(__file__).parent)}
        return subprocess.run(
            [sys.executable, "-c", KILLED], env=os.environ | there | path, capture_output=True, text=True
        )

    whole = go(tmp_path / "whole.safetensors", 0, tmp_path / "one")
    assert whole.returncode == 0, whole.stderr
    total = len(whole.stdout.split())
    killed = go(tmp_path / "resumed.safetensors", 5, tmp_path / "two")
    assert killed.returncode == -signal.SIGKILL and not (tmp_path / "resumed.safetensors").exists()
    resumed = go(tmp_path / "resumed.safetensors", 0, tmp_path / "two")
    assert resumed.returncode == 0, resumed.stderr
    assert len(resumed.stdout.split()) == total - 5
    first, second = (el.load_vectors(tmp_path / name) for name in ("whole.safetensors", "resumed.safetensors"))
    for name in ("vectors", "probes", "mean", "residual_norm"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert not list((tmp_path / "two" / "extractions").glob("*/means"))  # nothing is left when it is done


def test_the_shipped_vectors_come_back_at_once_and_a_sample_can_be_made_again(subject, shipped):
    start = time.perf_counter()
    vectors = el.extract(subject)
    assert time.perf_counter() - start < 30
    assert vectors.emotions == el.emotions() and vectors.layers == tuple(range(1, 31))
    chosen = ["afraid", "calm", "jealous", "proud"]
    again = mean_activations(subject, [s.text for s in el.stories(emotions=chosen)], progress=None).means
    again = again.reshape(4, 12, 30, 576).mean(1) - shipped.mean  # [emotion, layer, d_model]
    kept = shipped[chosen].vectors
    cosine = (again * kept).sum(-1) / np.linalg.norm(again, axis=-1) / np.linalg.norm(kept, axis=-1)
    assert cosine.min() > 0.99


def test_shipped_vectors_hold_what_the_file_promises(shipped):
    assert shipped.info["n_stories"] == 2052 and shipped.info["n_choose"] == 2052 and shipped.info["n_test"] == 384
    assert shipped.info["corpus"] == __import__("emolab.data").data.corpus_hash(el.stories())
    assert 10 <= shipped.chosen_layer <= 26


def test_neutral_statistics_are_of_ordinary_tokens(shipped):
    """Attention sinks, a hundred times as long as other tokens, would swamp the scale of every score."""
    row = shipped.row()
    lengths = np.linalg.norm(shipped.evidence.neutral, axis=1)
    assert lengths.max() < 3 * np.median(lengths)
    probes = shipped.neutral_sd[1, :, row]
    assert probes.max() < 2 * np.median(probes)
    assert (np.abs(shipped.neutral_components[row]).sum(-1) > 0).sum() > 5
