"""What the model expects to come next: losses of tokens, log-probabilities of continuations, next-token distributions.

Texts go in batches of like length, right-padded; a batch gives what one text alone gives.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature

import numpy as np
import torch

from emolab.activations import encode_all, pad, plan_batches, token_budget
from emolab.errors import EmolabError
from emolab.model import Subject, not_finite

GRADIENT_TOKENS = 2048  # in a batch that keeps what the way back needs


@torch.inference_mode()
def token_losses(subject: Subject, texts: Sequence[str]) -> list[np.ndarray]:
    """[token] for each text: -log p of each token given all before it, in nats; NaN for the first.

    Raises EmolabError for no texts, or one that is empty, of a single token, or beyond the context window.
    """
    ids = encode_all(subject, texts, 1)
    losses: list[np.ndarray] = [np.empty(0)] * len(ids)
    for batch, input_ids, mask in _batches(subject, ids):
        logits = _logits(subject, input_ids, mask)
        for place, i in enumerate(batch):
            found = _picked(logits[place, : len(ids[i]) - 1], ids[i][1:])
            losses[i] = np.concatenate([[np.nan], -_numbers(subject, found)])
    return losses


def continuation_logprobs(subject: Subject, prompts: Sequence[str], continuations: Sequence[str]) -> np.ndarray:
    """[pair] log-probability, summed over its tokens, of each continuation right after its prompt, in nats.

    Prompt and continuation are read as one text: a token that reaches into the continuation counts as part of it.
    Raises EmolabError if the two lists differ in length, a continuation is empty, or a text is too long.
    """
    ids, starts = _continued(subject, prompts, continuations)
    found = np.empty(len(ids))
    for batch, input_ids, mask in _batches(subject, ids):
        with torch.inference_mode():
            found[batch] = _sums(subject, input_ids, mask, [starts[i] for i in batch], [ids[i] for i in batch]).cpu()
    return _numbers(subject, found)


def continuation_gradients(
    subject: Subject, prompts: Sequence[str], continuations: Sequence[str], layer: int, pushed: Sequence[slice]
) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities as `continuation_logprobs` gives them, and how they answer to any small push at a layer.

    pushed : for each pair the tokens of the prompt that are pushed after block `layer`

    Returns [pair] log-probabilities and [pair, d_model] their gradients: a push of `vector` at all those tokens
    changes the log-probability by `gradient @ vector`, as long as it is small. One pass there and back thus says what
    steering does to first order, for as many directions as one likes.

    Raises EmolabError as `continuation_logprobs` does, and for a layer that can't be pushed.
    """
    if not 1 <= layer <= subject.n_layers:
        raise EmolabError(f"layer {layer} can't be pushed: {subject.name} has 1..{subject.n_layers}")
    ids, starts = _continued(subject, prompts, continuations)
    found, gradients = np.empty(len(ids)), np.empty((len(ids), subject.d_model))
    for batch in plan_batches([len(i) for i in ids], min(token_budget(subject), GRADIENT_TOKENS)):
        input_ids, mask = pad([ids[i] for i in batch], subject.pad_id)
        push = torch.zeros(len(batch), 1, subject.d_model, requires_grad=True)
        here = torch.zeros(*input_ids.shape, 1)  # [text, token, 1]: 1 where a token is pushed
        for place, i in enumerate(batch):
            here[place, pushed[i]] = 1
        with torch.enable_grad(), _pushed(subject, layer, push, here):
            sums = _sums(subject, input_ids, mask, [starts[i] for i in batch], [ids[i] for i in batch])
            (gradient,) = torch.autograd.grad(sums.sum(), push)  # texts of a batch don't touch each other
        found[batch], gradients[batch] = sums.detach().cpu(), gradient[:, 0]
    return _numbers(subject, found), _numbers(subject, gradients)


@torch.inference_mode()
def next_token_logprobs(subject: Subject, texts: Sequence[str], tokens: Sequence[int] | None = None) -> np.ndarray:
    """[text, token of the vocabulary] log-probabilities of what follows each text, or of some `tokens` only."""
    ids = encode_all(subject, texts, 0)
    kept = slice(None) if tokens is None else list(tokens)
    rows: list[np.ndarray] = [np.empty(0)] * len(ids)
    for batch, input_ids, mask in _batches(subject, ids):
        logits = _logits(subject, input_ids, mask, min(len(ids[i]) for i in batch) - 1)
        skipped = input_ids.shape[1] - logits.shape[1]
        for place, i in enumerate(batch):
            last = logits[place, len(ids[i]) - 1 - skipped].float().log_softmax(-1)
            rows[i] = _numbers(subject, last[kept].cpu().numpy())
    return np.stack(rows)


def _continued(
    subject: Subject, prompts: Sequence[str], continuations: Sequence[str]
) -> tuple[list[list[int]], list[int]]:
    """Token ids of each prompt with its continuation, and the first token that reaches into the continuation."""
    if len(prompts) != len(continuations) or not all(continuations):
        raise EmolabError(f"each of {len(prompts)} prompts needs a continuation that is not empty")
    texts = [prompt + continuation for prompt, continuation in zip(prompts, continuations, strict=True)]
    ids = encode_all(subject, texts, 1)
    starts = [
        max(1, next(i for i, (_, end) in enumerate(subject.spans(text)) if end > len(prompt)))
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    return ids, starts


def _sums(
    subject: Subject, input_ids: torch.Tensor, mask: torch.Tensor, starts: Sequence[int], ids: Sequence[Sequence[int]]
) -> torch.Tensor:
    """[text] log-probability of each text from its start on, summed over tokens."""
    logits = _logits(subject, input_ids, mask, min(starts) - 1)
    skipped = input_ids.shape[1] - logits.shape[1]
    own = [
        _logprobs(row[start - 1 - skipped : len(text) - 1 - skipped], text[start:]).sum()
        for row, start, text in zip(logits, starts, ids, strict=True)
    ]
    return torch.stack(own)


@contextmanager
def _pushed(subject: Subject, layer: int, push: torch.Tensor, here: torch.Tensor) -> Iterator[None]:
    """While open, `push` [text, 1, d_model] is added after block `layer` where `here` [text, token, 1] is 1."""

    def add(module, args, output):
        hidden = output[0] if isinstance(output, tuple) else output  # [text, token, d_model]
        changed = (hidden.float() + here.to(hidden.device) * push.to(hidden.device)).to(hidden.dtype)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handle = subject.blocks[layer - 1].register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def _numbers(subject: Subject, found: np.ndarray) -> np.ndarray:
    """What was found, if it is numbers. Raises EmolabError for NaN, as a model overflowing in float16 gives."""
    if np.isnan(found).any():
        raise not_finite(subject, "log-probabilities that are not numbers")
    return found


def _picked(logits: torch.Tensor, ids: Sequence[int]) -> np.ndarray:
    """[token] log-probabilities of ids under logits [token, vocabulary]."""
    return _logprobs(logits, ids).cpu().numpy()


def _logprobs(logits: torch.Tensor, ids: Sequence[int]) -> torch.Tensor:
    target = torch.tensor(ids, device=logits.device)[:, None]
    return logits.float().log_softmax(-1).gather(1, target)[:, 0].double()


def _batches(subject: Subject, ids: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    for batch in plan_batches([len(i) for i in ids], token_budget(subject)):
        yield batch, *pad([ids[i] for i in batch], subject.pad_id)


def _logits(subject: Subject, input_ids: torch.Tensor, mask: torch.Tensor, start: int = 0) -> torch.Tensor:
    """[text, token from `start` on, vocabulary]; from 0 on where the model can't leave out what is not asked for.

    Whether the way back is kept is up to the caller.
    """
    can = "logits_to_keep" in signature(subject.model.forward).parameters
    # places by number, not a count from the end: a slice would make torch copy the unembedding for every text
    options = {"logits_to_keep": torch.arange(start, input_ids.shape[1])} if can else {}
    return subject.model(
        input_ids=input_ids.to(subject.device),
        attention_mask=mask.to(subject.device),
        use_cache=False,
        **options,
    ).logits
