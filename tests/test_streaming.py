"""Corpora of any size: files read as needed, sums that add up, a sample that does not depend on the order."""

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_extraction import EMOTIONS, STORIES, make, stories

import emolab as el
from emolab import corpus, data
from emolab.activations import mean_activations
from emolab.data import StoryFile, chunks, survey
from emolab.directions import fit
from emolab.sums import Sums

MORE = [story for seed in range(3) for story in stories(EMOTIONS, seed=seed)]  # 72


def write(path, texts):
    path.write_text("\n".join(json.dumps(vars(story)) for story in texts) + "\n")
    return path


def same(ours, theirs, **close):
    for name in ("vectors", "probes", "mean", "residual_norm", "counts"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), **close)


def test_a_file_gives_what_its_list_gives(tiny, cache, tmp_path):
    table = tmp_path / "stories.parquet"
    pd.DataFrame([vars(story) for story in MORE]).to_parquet(table)
    lines = write(tmp_path / "stories.jsonl", MORE)
    assert list(StoryFile(table)) == list(StoryFile(lines)) == el.stories(table) == MORE
    listed = make(tiny, MORE)
    for path in (table, str(lines)):
        same(make(tiny, path), listed, rtol=0)
    same(make(tiny, iter(MORE)), listed, rtol=0)


def test_a_file_without_parts_or_with_empty_ones(tmp_path):
    rows = [{"emotion": "sad", "text": "rain"}, {"emotion": "sad", "text": "snow", "part": None}]
    table = tmp_path / "stories.parquet"
    pd.DataFrame(rows).to_parquet(table)
    lines = tmp_path / "stories.jsonl"
    lines.write_text("\n".join(map(json.dumps, rows)))
    assert [story.part for path in (table, lines) for story in StoryFile(path)] == [""] * 4


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("none.parquet", None, "there is no file"),
        ("torn.parquet", b"PAR1 and then nothing", "not a parquet table"),
        ("empty.jsonl", b"\n\n", "holds no stories"),
        ("late.jsonl", b'{"emotion": "sad", "text": "rain"}\n{"emotion": "sad"}\n', "line 2: 'text' is missing"),
        ("latin.jsonl", '{"emotion": "sad", "text": "café"}'.encode("latin-1"), "UTF-8"),
    ],
)
def test_a_broken_file_is_named(tmp_path, name, content, says):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(el.EmolabError, match=says):
        survey(StoryFile(tmp_path / name))


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(el.EmolabError, match=r"pip install 'emolab\[cluster\]'"):
        el.stories(tmp_path / "stories.parquet")


@given(st.lists(st.integers(1, 20), max_size=6), st.sampled_from(["story", "token"]))
@settings(max_examples=25, deadline=None)
def test_sums_add_up_however_the_stories_are_cut(tiny, sizes, pooling):
    known, means = survey(MORE), mean_activations(tiny, [story.text for story in MORE], layers=[1, 3], progress=None)
    means.tokens[:] = np.arange(len(MORE)) % 5 + 20  # as if of different lengths
    whole = Sums.empty(known, 2, 32)
    whole.add(MORE, means, pooling)
    pieces, ends = Sums.empty(known, 2, 32), [0, *np.cumsum(sizes).clip(max=len(MORE)).tolist(), len(MORE)]
    for start, end in pairwise(ends):
        piece = Sums.empty(known, 2, 32)
        piece.add(MORE[start:end], means[start:end], pooling)
        pieces.merge(piece)
    assert (pieces.n, pieces.tokens) == (whole.n, whole.tokens) == (72, means.lengths.sum())
    for name in ("cells", "sums", "squares", "norms"):
        np.testing.assert_allclose(getattr(pieces, name), getattr(whole, name))
    assert [kept.story for kept in pieces.kept()] == [kept.story for kept in whole.kept()]
    direct = fit(whole.labelled(1), np.array([kept.weight for kept in whole.kept()]))
    for name in ("vectors", "mean", "metric"):
        np.testing.assert_allclose(getattr(whole.fit(1), name), getattr(direct, name), atol=1e-9)


def test_the_sample_has_its_size_and_does_not_depend_on_the_order(tiny, cache, monkeypatch):
    whole = make(tiny, MORE)
    monkeypatch.setattr(data, "SAMPLE", 30)
    some, turned = make(tiny, MORE), make(tiny, MORE[::-1])
    assert survey(MORE).sample == survey(MORE[::-1]).sample
    counts = dict(zip(*np.unique(some.evidence.train.emotions, return_counts=True), strict=True))
    assert counts == dict.fromkeys(EMOTIONS, 5)
    same(some, whole, rtol=0)  # the vectors are of all stories
    same(turned, whole, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(some.evidence.train.emotions, turned.evidence.train.emotions)
    np.testing.assert_allclose(some.evidence.train.means, turned.evidence.train.means, atol=1e-5)
    assert some.quality().row("choose").top1 == whole.quality().row("choose").top1
    with pytest.raises(el.EmolabError, match="of 72 stories 30 are kept"):
        some.merge(whole)


def test_a_text_that_can_not_be_read_shows_before_the_work(tiny, cache, monkeypatch):
    monkeypatch.setattr(corpus, "CHUNK", 10)
    monkeypatch.setattr(corpus, "mean_activations", lambda *_, **__: pytest.fail("work has begun"))
    with pytest.raises(el.EmolabError, match="text 24 has 2 tokens"):
        make(tiny, [*STORIES, el.Story("sad", "the dog", "a")])


KILLED = """
import os, signal
from test_streaming import MORE, make
from test_extraction import tiny_subject
from emolab import corpus
corpus.CHUNK, corpus.SAVE_EVERY = 7, float(os.environ["SAVE_EVERY"])
read, done = corpus.mean_activations, []
def counted(*args, **options):
    found = read(*args, **options)
    done.append(1)
    if len(done) == int(os.environ["STOP_AFTER"]):
        os.kill(os.getpid(), signal.SIGKILL)
    return found
corpus.mean_activations = counted
make(tiny_subject(), MORE).save(os.environ["OUT"])
print(len(done))
"""


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL here")
@pytest.mark.parametrize("save_every", [0, 1e9])
def test_killed_between_chunks_it_goes_on_to_the_same_bits(tmp_path, save_every):
    def run(cache, out, stop=0):
        env = os.environ | {
            "EMOLAB_CACHE": str(tmp_path / cache),
            "OUT": str(tmp_path / out),
            "SAVE_EVERY": str(save_every),
            "STOP_AFTER": str(stop),
            "PYTHONPATH": str(Path(__file__).parent),
        }
        return subprocess.run([sys.executable, "-c", KILLED], env=env, capture_output=True, text=True)

    assert run("a", "whole.safetensors").stdout.split() == ["12"]  # 11 chunks, and the held-out stories
    assert run("b", "again.safetensors", stop=5).returncode == -9
    again = run("b", "again.safetensors")
    assert again.stdout.split() == ["8" if save_every == 0 else "12"], again.stderr  # 4 chunks were in the checkpoint
    for suffix in (".safetensors", ".evidence.safetensors"):
        assert (tmp_path / f"whole{suffix}").read_bytes() == (tmp_path / f"again{suffix}").read_bytes()
    assert not list((tmp_path / "b" / "extractions").glob("*/*"))


def test_chunks_are_all_the_stories():
    assert [story for chunk in chunks(MORE, 7) for story in chunk] == MORE
