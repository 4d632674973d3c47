"""A plan: tokens to the letter, memory within bounds, a time, and nothing fetched or written."""

from pathlib import Path

import pytest
import torch
from conftest import NEUTRAL, save_tiny, tiny_stories

import emolab as el
from emolab.planning import GB, Plan

LONG = {"max_position_embeddings": 512}


@pytest.fixture(autouse=True)
def few_neutral_texts(monkeypatch):
    monkeypatch.setattr("emolab.data.neutral", lambda: NEUTRAL)


def of(folder: Path, **options) -> Plan:
    return el.plan(folder, tiny_stories(), held_out=el.HeldOut(tiny_stories(), ()), **options)


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "gpt2", "gpt_neox", "falcon", "opt"])
def test_any_architecture(architecture, tmp_path, cache):
    plan = of(save_tiny(tmp_path / "tiny", architecture=architecture, **LONG), dtype=torch.float32)
    subject = el.load(tmp_path / "tiny", dtype=torch.float32)
    texts = [story.text for story in tiny_stories() * 2] + NEUTRAL
    assert (plan.texts, plan.tokens) == (len(texts), sum(len(subject.encode(text)) for text in texts))
    weights = sum(weights.numel() for weights in subject.model.parameters())
    assert (plan.parameters, plan.weights) == (weights, 4 * weights)
    assert (plan.n_layers, plan.d_model, plan.deepest) == (4, 32, 4)
    assert plan.tokens_per_s > 0 and 0 < plan.seconds < 600
    assert not cache.exists() and [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_memory_and_time_go_with_what_is_read(tmp_path):
    folder = save_tiny(tmp_path / "tiny", **LONG)
    every, few = of(folder, dtype=torch.float32), of(folder, dtype=torch.bfloat16, layers=[1])
    assert few.weights * 2 == every.weights and few.working < every.working and few.disk * 4 == every.disk
    assert few.deepest == 1 and few.seconds < every.seconds * 2
    means = 4 * 32 * 4 * (512 + 9 + 9)  # float32 at four layers: a chunk, the held-out stories, the sample
    assert every.disk == means and every.working > means + 4 * 32 * 32 * 8


def test_it_says_so_where_there_is_not_enough(tmp_path):
    plan = of(save_tiny(tmp_path / "tiny", **LONG))
    assert "There are" not in plan.verdict() and f"{plan.tokens:,} tokens" in plan.verdict()
    large = Plan(**vars(plan) | {"weights": 14 * GB, "memory": 8.0 * GB})
    assert "There are 8.0 GB: spread it with device_map='auto'" in large.verdict()


def test_what_can_not_be_planned(tmp_path, cache, monkeypatch):
    with pytest.raises(el.EmolabError, match="gemma-3-270m is not here: fetch it first with `emolab model get gemma"):
        el.plan("gemma-3-270m")
    assert not cache.exists()
    with pytest.raises(el.EmolabError, match="unknown model 'gema'"):
        el.plan("gema")
    (tmp_path / "empty").mkdir()
    with pytest.raises(el.EmolabError, match="is not a causal language model"):
        el.plan(tmp_path / "empty")
    with pytest.raises(el.EmolabError, match="not all in"):
        of(save_tiny(tmp_path / "tiny", **LONG), layers=[9])
