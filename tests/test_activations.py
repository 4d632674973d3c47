"""Reading the residual stream: batches, layers, resuming, bad input."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ARCHITECTURES, WORDS, tiny_subject
from hypothesis import given, settings
from hypothesis import strategies as st

import emolab as el
from emolab import activations
from emolab.activations import (
    brisk_attention,
    capture,
    forward,
    mean_activations,
    pad,
    plan_batches,
    read,
    sample_tokens,
)

TEXTS = [" ".join(WORDS[(i * j) % len(WORDS)] for j in range(1, 8 + 3 * i)) for i in range(1, 12)]


def one_by_one(subject, text, layers, offset):
    return read(subject, text, layers)[:, offset:].mean(1)  # [layer, d_model]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_batch_equals_one_by_one(architecture):
    subject = tiny_subject(architecture)
    means = mean_activations(subject, TEXTS, layers=range(5), offset=2, progress=None).means
    for text, mean in zip(TEXTS, means, strict=True):
        np.testing.assert_allclose(mean, one_by_one(subject, text, range(5), 2), atol=1e-5)


def test_a_batch_equals_one_by_one_on_the_embedded_model():
    subject = el.load(dtype=torch.float32)
    texts = [story.text for story in el.stories()[:8]]
    texts = [text[: 200 + 60 * i] for i, text in enumerate(texts)]  # of very different lengths, so that padding matters
    means = mean_activations(subject, texts, offset=10, progress=None).means  # [text, layer, d_model]
    alone = np.stack([one_by_one(subject, text, None, 10) for text in texts])
    cosine = (means * alone).sum(-1) / np.linalg.norm(means, axis=-1) / np.linalg.norm(alone, axis=-1)
    assert (1 - cosine).max() < 1e-5


def test_means_are_taken_from_the_offset_on_and_norms_with_them(tiny):
    means = mean_activations(tiny, TEXTS[:1], layers=[3], offset=4, progress=None)
    hidden = read(tiny, TEXTS[0], [3])[0, 4:]  # [token, d_model]
    np.testing.assert_allclose(means.means[0, 0], hidden.mean(0), atol=1e-6)
    np.testing.assert_allclose(means.norms[0, 0], np.linalg.norm(hidden, axis=1).mean(), rtol=1e-5)
    assert means.tokens[0] == len(hidden)


def test_asking_for_fewer_layers_gives_the_same_and_runs_less(tiny):
    ran = []
    handles = [block.register_forward_hook(lambda *_, k=k: ran.append(k)) for k, block in enumerate(tiny.blocks, 1)]
    some = mean_activations(tiny, TEXTS, layers=[1, 2], offset=2, progress=None).means
    for handle in handles:
        handle.remove()
    every = mean_activations(tiny, TEXTS, offset=2, progress=None).means
    np.testing.assert_array_equal(some, every[:, :2])
    assert set(ran) == {1, 2}


def test_sampled_tokens_are_tokens_of_the_text(tiny):
    sample = sample_tokens(tiny, TEXTS, layers=[2], offset=1, per_text=3, progress=None)
    assert sample.shape == (1, 3 * len(TEXTS), tiny.d_model)
    first = read(tiny, TEXTS[0], [2])[0]  # [token, d_model]
    np.testing.assert_allclose(sample[0, 0], first[1], atol=1e-5)
    np.testing.assert_allclose(sample[0, 2], first[-1], atol=1e-5)


def test_no_hook_and_no_setting_is_left_behind(tiny):
    kernel = tiny.config._attn_implementation
    hooks = [(len(block._forward_hooks), len(block._forward_pre_hooks)) for block in tiny.blocks]  # of transformers

    def explode(layer, hidden):
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError), brisk_attention(tiny, [[1, 2]]), capture(tiny, [1, 2], explode):
        forward(tiny, *pad([[1, 2]], 0))
    assert tiny.config._attn_implementation == kernel
    assert [(len(block._forward_hooks), len(block._forward_pre_hooks)) for block in tiny.blocks] == hooks


@pytest.fixture
def cores():
    """Sets the number of cores that torch takes, until the end of the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(params=[1, 2])
def threads(request, cores):
    cores(request.param)
    return request.param


def test_an_interrupted_reading_goes_on_and_gives_the_same_bits(tiny, tmp_path, monkeypatch, threads):
    monkeypatch.setattr(activations, "token_budget", lambda subject: 60)  # many batches
    whole = mean_activations(tiny, TEXTS, offset=2, progress=None)
    batches = plan_batches([len(text.split()) for text in TEXTS], 60)
    fourth, _ = pad([tiny.encode(TEXTS[i]) for i in batches[3]], tiny.pad_id)
    read = []

    def interrupted(subject, input_ids, mask):
        if fourth is not None and torch.equal(input_ids, fourth):
            raise KeyboardInterrupt
        read.append(1)
        forward(subject, input_ids, mask)

    monkeypatch.setattr(activations, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mean_activations(tiny, TEXTS, offset=2, folder=tmp_path, progress=None)
    assert torch.get_num_threads() == threads
    kept = int(np.fromfile(tmp_path / "done", np.uint8).sum())
    assert kept == 3 < len(batches)  # all before the one that was cut short
    read.clear()
    fourth = None
    resumed = mean_activations(tiny, TEXTS, offset=2, folder=tmp_path, progress=None)
    assert len(read) == len(batches) - kept  # nothing that was kept is read twice
    np.testing.assert_array_equal(resumed.means, whole.means)
    np.testing.assert_array_equal(resumed.norms, whole.norms)


def test_batches_side_by_side_do_not_mix(tiny, monkeypatch, cores):
    monkeypatch.setattr(activations, "token_budget", lambda subject: 60)
    cores(1)
    inline = mean_activations(tiny, TEXTS, offset=2, progress=None)
    picked = sample_tokens(tiny, TEXTS, per_text=3, progress=None)
    together, met = threading.Barrier(3), []

    def slow(*args):
        if len(met) < 3:  # three passes are under way at once, or the barrier breaks
            met.append(threading.get_ident())
            together.wait(timeout=60)
        forward(*args)

    cores(3)
    monkeypatch.setattr(activations, "forward", slow)
    beside = mean_activations(tiny, TEXTS, offset=2, progress=None)
    assert len(set(met)) == 3
    np.testing.assert_allclose(beside.means, inline.means, atol=1e-6)
    np.testing.assert_allclose(beside.norms, inline.norms, rtol=1e-6)
    np.testing.assert_allclose(sample_tokens(tiny, TEXTS, per_text=3, progress=None), picked, atol=1e-6)


def test_what_another_thread_reads_is_not_captured(tiny):
    ids, mask = pad([[5, 6, 7]], 0)
    taken, elsewhere = [], []

    def other():
        forward(tiny, ids, mask)  # runs undisturbed
        with capture(tiny, [2], lambda layer, hidden: elsewhere.append(layer)):
            forward(tiny, ids, mask)

    with capture(tiny, [1, 3], lambda layer, hidden: taken.append(layer)):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert not taken and elsewhere == [2]
        forward(tiny, ids, mask)
    assert taken == [1, 3] and elsewhere == [2]


def test_side_by_side_only_where_it_is_safe_and_pays(tiny, threads):
    def at_once(subject, lengths):
        batches, number = activations._plan(subject, [[1] * length for length in lengths])
        assert number <= len(batches)
        return number

    assert at_once(tiny, [30] * 8) == threads  # few as they are, there are some for every thread
    assert at_once(tiny, [30]) == 1
    assert at_once(tiny, [30] * 8 + [600]) == 1  # long texts keep all cores busy on their own
    foreign = type("Model", (torch.nn.Linear,), {"__module__": "modeling_of_somebody"})(2, 2)
    assert at_once(SimpleNamespace(model=foreign, device=tiny.device), [30] * 8) == 1  # may keep state in its modules
    elsewhere = tiny_subject()
    elsewhere.model.lm_head.to("meta")  # as a model that is spread over devices or a disk
    assert at_once(elsewhere, [30] * 8) == 1


def test_unfinished_work_of_another_plan_is_not_used(tiny, tmp_path):
    mean_activations(tiny, TEXTS, offset=2, folder=tmp_path, progress=None)
    other = mean_activations(tiny, TEXTS[::-1], offset=3, folder=tmp_path, progress=None)
    fresh = mean_activations(tiny, TEXTS[::-1], offset=3, progress=None)
    np.testing.assert_array_equal(other.means, fresh.means)


@pytest.mark.parametrize(
    ("texts", "offset", "says"),
    [
        ([], 2, "no texts"),
        (["the dog walked", ""], 1, "text 1: the text is empty"),
        (["the dog walked"], 10, "text 0 has 3 tokens, and means start at token 10"),
        (["dog " * 65], 2, "at most 64"),
    ],
)
def test_unusable_texts_are_named(tiny, texts, offset, says):
    with pytest.raises(el.EmolabError, match=says):
        mean_activations(tiny, texts, offset=offset, progress=None)


@pytest.mark.parametrize("layers", [[5], [-1], []])
def test_layers_that_are_not_there(tiny, layers):
    with pytest.raises(el.EmolabError, match=r"1\.\.4"):
        read(tiny, "the dog", layers)


def test_activations_that_are_not_finite_are_refused():
    subject = tiny_subject()
    subject.blocks[2].mlp.down_proj.weight[:] = float("nan")
    with pytest.raises(el.EmolabError, match="not finite from layer 3"):
        mean_activations(subject, TEXTS, offset=2, progress=None)


def test_no_room_for_unfinished_work_is_said_before_the_work(tiny, tmp_path, monkeypatch):
    import os

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(el.EmolabError, match=r"no room.*EMOLAB_CACHE"):
        mean_activations(tiny, TEXTS, offset=2, folder=tmp_path / "work", progress=None)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=60), st.integers(1, 2000))
@settings(max_examples=100, deadline=None)
def test_batches_hold_every_text_once_within_the_budget(lengths, budget):
    batches = plan_batches(lengths, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=12), min_size=1, max_size=6))
def test_padding_is_on_the_right_and_masked(ids):
    rows, mask = pad(ids, pad_id=0)
    for row, hidden, original in zip(rows.tolist(), mask.tolist(), ids, strict=True):
        assert row[: len(original)] == original
        assert hidden == [1] * len(original) + [0] * (len(row) - len(original))
