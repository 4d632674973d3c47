"""Steering and ablation: the layer and tokens that were asked for, nothing else, and always undone."""

import numpy as np
import pytest
import torch
from conftest import ARCHITECTURES, tiny_subject, tiny_text

import emolab as el
from emolab.activations import read
from emolab.steering import ablate, steer


def hooks(subject) -> int:
    """How many hooks of ours there are; transformers leaves some of its own."""
    modules = list(subject.model.modules())
    found = [hook for m in modules for hook in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]
    return sum(getattr(hook, "__module__", "").startswith("emolab") for hook in found)


def push_of(vectors, emotion, strength, layer) -> np.ndarray:
    """[d_model] what steering along one emotion should add."""
    row = vectors.row(layer)
    vector = vectors.vectors[vectors.index(emotion), row]
    return strength * vectors.residual_norm[row] * vector / np.linalg.norm(vector)


def test_steering_and_reading_use_the_same_number(tiny, tiny_vectors):
    """The change first shows where layer k is read, at the pushed tokens only, and is exactly the push."""
    text = tiny_text(3)
    plain = read(tiny, text)  # layers 1..4
    for layer in (1, 2, 3, 4):
        with steer(tiny, tiny_vectors["calm"], 0.5, layers=layer, positions=slice(5, 8)) as passes:
            change = read(tiny, text) - plain  # [layer, token, d_model]
        push = push_of(tiny_vectors, "calm", 0.5, layer)
        assert passes == [range(5, 8)]
        assert np.abs(change[: layer - 1]).max(initial=0) == 0
        assert change[layer - 1, 5:8] == pytest.approx(np.tile(push, (3, 1)), abs=1e-5)
        assert np.abs(np.delete(change[layer - 1], [5, 6, 7], axis=0)).max() == 0
        assert np.abs(change[layer:, :5]).max(initial=0) == 0
        assert layer == 4 or (np.abs(change[layer:, 8:]).max(-1) > 0).all()
    assert hooks(tiny) == 0 and (read(tiny, text) == plain).all()


def test_steering_is_undone_whatever_happens(tiny, tiny_vectors):
    with pytest.raises(RuntimeError, match="inside"), steer(tiny, tiny_vectors["calm"], 1.0, layers=2):
        assert hooks(tiny) == 3
        raise RuntimeError("inside")
    assert hooks(tiny) == 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_pass_equals_keeping_the_cache(architecture, tiny_vectors):
    """A pulse in one pass is the pulse in a prompt that is processed piece by piece with its cache kept."""
    subject = tiny_subject(architecture)
    vectors = tiny_vectors.__class__(**{
        **tiny_vectors.__dict__, "info": tiny_vectors.info | {"weights": subject.weight_sample},
    })  # fmt: skip
    ids = torch.tensor([subject.encode(tiny_text(5))])
    push = 0.1 * np.random.default_rng(0).standard_normal(subject.d_model)
    with torch.inference_mode(), steer(subject, vectors, push, layers=2, positions=slice(6, 9)):
        whole = subject.model(ids).logits
        cache, pieces = None, []
        for part in (ids[:, :7], ids[:, 7:8], ids[:, 8:15], ids[:, 15:]):
            output = subject.model(part, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            pieces.append(output.logits)
    with torch.inference_mode():
        assert not torch.allclose(subject.model(ids).logits, whole, atol=1e-3)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-4, rtol=1e-3)


def test_several_emotions_and_layers(tiny, tiny_vectors):
    text = tiny_text(4)
    plain = read(tiny, text)
    with steer(tiny, tiny_vectors, {"calm": 0.4, "afraid": -0.2}, layers=3):
        change = read(tiny, text) - plain
    push = push_of(tiny_vectors, "calm", 0.4, 3) + push_of(tiny_vectors, "afraid", -0.2, 3)
    assert change[2] == pytest.approx(np.tile(push, (change.shape[1], 1)), abs=1e-5)

    with steer(tiny, tiny_vectors["calm"], 0.4, layers=[4]):
        last = read(tiny, text) - plain
    with steer(tiny, tiny_vectors["calm"], 0.4, layers=[1, 4]) as passes:
        both = read(tiny, text) - plain
    assert both[0] == pytest.approx(np.tile(push_of(tiny_vectors, "calm", 0.4, 1), (change.shape[1], 1)), abs=1e-5)
    assert passes == [range(change.shape[1])] and not np.allclose(both[3], last[3], atol=1e-3)


def test_nested_steering_adds_up(tiny, tiny_vectors):
    text = tiny_text(6)
    with steer(tiny, tiny_vectors, {"calm": 0.4, "afraid": 0.2}):
        together = read(tiny, text)
    with steer(tiny, tiny_vectors["calm"], 0.4):
        with steer(tiny, tiny_vectors["afraid"], 0.2):
            nested = read(tiny, text)
        alone = read(tiny, text)
    with steer(tiny, tiny_vectors["calm"], 0.4):
        assert read(tiny, text) == pytest.approx(alone, abs=1e-6)
    assert nested == pytest.approx(together, abs=1e-4) and hooks(tiny) == 0


def test_generation_pushes_what_was_asked_for(tiny, tiny_vectors):
    prompt = tiny_text(7, words=9)
    plain = tiny.generate(prompt, 5)
    expected = [
        (None, [9, 1, 1, 1, 1]),
        ("prompt", [9, 0, 0, 0, 0]),
        ("generated", [0, 1, 1, 1, 1]),
        (slice(8, 11), [1, 1, 1, 0, 0]),
    ]
    for positions, sizes in expected:
        with steer(tiny, tiny_vectors["calm"], 0.5, positions=positions) as passes:
            tiny.generate(prompt, 5)
        assert [len(steered) for steered in passes] == sizes
        assert [steered.start for steered in passes[1:] if steered] == [9, 10, 11, 12][: sum(sizes[1:])]
    assert tiny.generate(prompt, 5) == plain and hooks(tiny) == 0


def test_a_slice_and_left_padding_do_not_go_together(tiny, tiny_vectors):
    prompts = [tiny_text(8, words=9), tiny_text(9, words=5)]
    with pytest.raises(el.EmolabError, match="one by one"), steer(
        tiny, tiny_vectors["calm"], 0.5, positions=slice(3, 5)
    ):  # fmt: skip
        tiny.generate(prompts, 3)
    with steer(tiny, tiny_vectors["calm"], 0.5):
        together = tiny.generate(prompts, 8)
        assert together == [tiny.generate(prompt, 8) for prompt in prompts]


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2"])
def test_ablation_leaves_nothing_of_the_subspace_but_its_centre(architecture):
    subject = tiny_subject(architecture)
    rng, text = np.random.default_rng(0), tiny_text(3)
    basis, centre = rng.standard_normal((3, 32)), rng.standard_normal(32)
    plain = read(subject, text)
    with ablate(subject, basis, centre, 2) as passes:
        found = read(subject, text)
    axes = np.linalg.qr(basis.T)[0]
    assert (found[:1] == plain[:1]).all() and (found[:, 0] == plain[:, 0]).all()
    assert (found[1, 1:] - centre) @ axes == pytest.approx(0, abs=1e-4)
    outside = np.eye(32) - axes @ axes.T
    assert found[1] @ outside == pytest.approx(plain[1] @ outside, abs=1e-4)
    assert passes == [range(1, 20)] and hooks(subject) == 0
    with pytest.raises(el.EmolabError, match="32"), ablate(subject, np.ones((2, 31)), centre, 2):
        pass
    with pytest.raises(el.EmolabError, match="has 1"), ablate(subject, basis, centre, 0):
        pass


@pytest.mark.parametrize(
    "push, options, words",
    [
        ({"clam": 0.3}, {}, "did you mean 'calm'"),
        (0.3, {}, "say which to push"),
        ({}, {}, "not all zero"),
        ({"calm": 0.0}, {}, "not all zero"),
        ({"calm": float("nan")}, {}, "finite"),
        (np.ones(31), {}, "32 finite numbers"),
        ({"calm": 0.3}, {"layers": 9}, "layer 9"),
        ({"calm": 0.3}, {"layers": 0}, "from 1 on"),
        ({"calm": 0.3}, {"layers": []}, "from 1 on"),
        ({"calm": 0.3}, {"positions": slice(4, 4)}, "stretch"),
        ({"calm": 0.3}, {"positions": slice(-3, None)}, "stretch"),
        ({"calm": 0.3}, {"positions": "reply"}, "generated"),
    ],
)
def test_steering_says_what_is_wrong(tiny, tiny_vectors, push, options, words):
    with pytest.raises(el.EmolabError, match=words), steer(tiny, tiny_vectors, push, **options):
        pass
    assert hooks(tiny) == 0
