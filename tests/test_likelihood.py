"""Losses, continuations and next tokens against the model's own logits, batched and alone."""

import numpy as np
import pytest
import torch
from conftest import ARCHITECTURES, tiny_subject, tiny_text

import emolab as el
from emolab.likelihood import continuation_logprobs, next_token_logprobs, token_losses

TEXTS = [tiny_text(seed, words=n) for seed, n in enumerate([12, 3, 30, 7, 18])]


def own_logprobs(subject, text) -> torch.Tensor:
    """[token, vocabulary] from the model alone."""
    with torch.inference_mode():
        return subject.model(torch.tensor([subject.encode(text)])).logits[0].float().log_softmax(-1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_batch_gives_what_the_model_says_of_each_text_alone(architecture):
    subject = tiny_subject(architecture)
    losses, following = token_losses(subject, TEXTS), next_token_logprobs(subject, TEXTS)
    for text, loss, row in zip(TEXTS, losses, following, strict=True):
        ids, logprobs = subject.encode(text), own_logprobs(subject, text)
        truth = -logprobs[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
        assert np.isnan(loss[0]) and loss[1:] == pytest.approx(truth.numpy(), abs=1e-4)
        assert row == pytest.approx(logprobs[-1].numpy(), abs=1e-4)
    assert next_token_logprobs(subject, TEXTS, [5, 3]) == pytest.approx(following[:, [5, 3]])


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3_text"])
def test_continuations_are_the_sum_of_their_tokens(architecture):
    subject = tiny_subject(architecture)
    prompts, ends = TEXTS, [" warm light", " dog", " cold night and rain", " sun", " the house"]
    losses = token_losses(subject, [prompt + end for prompt, end in zip(prompts, ends, strict=True)])
    truth = [-loss[-len(end.split()) :].sum() for loss, end in zip(losses, ends, strict=True)]
    assert continuation_logprobs(subject, prompts, ends) == pytest.approx(truth, abs=1e-4)


def test_the_embedded_model_knows_what_comes_next(subject):
    prompts = ["The capital of France is", "The capital of Italy is"]
    paris, rome = (continuation_logprobs(subject, prompts, [city] * 2) for city in (" Paris", " Rome"))
    assert paris[0] > rome[0] + 1 and rome[1] > paris[1] + 1


def test_bad_input(tiny):
    with pytest.raises(el.EmolabError, match="not empty"):
        continuation_logprobs(tiny, ["the dog"], [""])
    with pytest.raises(el.EmolabError, match="continuation"):
        continuation_logprobs(tiny, ["the dog", "a dog"], ["ran"])
    with pytest.raises(el.EmolabError, match="no texts"):
        token_losses(tiny, [])
    with pytest.raises(el.EmolabError, match="text 1:"):
        next_token_logprobs(tiny, ["the dog", tiny_text(1, words=80)])
