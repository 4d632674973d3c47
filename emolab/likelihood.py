"""What the model expects to come next: losses of tokens, log-probabilities of continuations, next-token distributions.

Texts go in batches of like length, right-padded; a batch gives what one text alone gives.
"""

from collections.abc import Iterator, Sequence
from inspect import signature

import numpy as np
import torch

from emolab.activations import encode_all, pad, plan_batches, token_budget
from emolab.errors import EmolabError
from emolab.model import Subject


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
            losses[i] = np.concatenate([[np.nan], -found])
    return losses


def continuation_logprobs(subject: Subject, prompts: Sequence[str], continuations: Sequence[str]) -> np.ndarray:
    """[pair] log-probability, summed over its tokens, of each continuation right after its prompt, in nats.

    Prompt and continuation are read as one text: a token that reaches into the continuation counts as part of it.
    Raises EmolabError if the two lists differ in length, a continuation is empty, or a text is too long.
    """
    if len(prompts) != len(continuations) or not all(continuations):
        raise EmolabError(f"each of {len(prompts)} prompts needs a continuation that is not empty")
    texts = [prompt + continuation for prompt, continuation in zip(prompts, continuations, strict=True)]
    ids = encode_all(subject, texts, 1)
    starts = [
        max(1, next(i for i, (_, end) in enumerate(subject.spans(text)) if end > len(prompt)))
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    found = np.empty(len(ids))
    for batch, input_ids, mask in _batches(subject, ids):
        logits = _logits(subject, input_ids, mask, min(starts[i] for i in batch) - 1)
        skipped = input_ids.shape[1] - logits.shape[1]
        for place, i in enumerate(batch):
            own = logits[place, starts[i] - 1 - skipped : len(ids[i]) - 1 - skipped]
            found[i] = _picked(own, ids[i][starts[i] :]).sum()
    return found


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
            rows[i] = last[kept].cpu().numpy()
    return np.stack(rows)


def _picked(logits: torch.Tensor, ids: Sequence[int]) -> np.ndarray:
    """[token] log-probabilities of ids under logits [token, vocabulary]."""
    target = torch.tensor(ids, device=logits.device)[:, None]
    return logits.float().log_softmax(-1).gather(1, target)[:, 0].cpu().numpy().astype(np.float64)


def _batches(subject: Subject, ids: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    for batch in plan_batches([len(i) for i in ids], token_budget(subject)):
        yield batch, *pad([ids[i] for i in batch], subject.pad_id)


def _logits(subject: Subject, input_ids: torch.Tensor, mask: torch.Tensor, start: int = 0) -> torch.Tensor:
    """[text, token from `start` on, vocabulary]; from 0 on where the model can't leave out what is not asked for."""
    can = "logits_to_keep" in signature(subject.model.forward).parameters
    options = {"logits_to_keep": input_ids.shape[1] - start} if can else {}
    with torch.inference_mode():
        return subject.model(
            input_ids=input_ids.to(subject.device),
            attention_mask=mask.to(subject.device),
            use_cache=False,
            **options,
        ).logits
