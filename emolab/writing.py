"""What a model writes with and without a push, and what the unpushed model makes of it when it reads it again.

`side_by_side()` writes a text twice, token by token; `reread()` scores tokens, their losses and what follows.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch

from emolab.activations import brisk_attention, pad, plan_batches, token_budget
from emolab.directions import METRICS, unit
from emolab.errors import EmolabError
from emolab.model import Subject, not_finite
from emolab.steering import Positions, steer, steered_layers
from emolab.vectors import EmotionVectors

TEMPERATURE, TOP_K = 0.8, 50  # of every text that is sampled here


@dataclass(frozen=True)
class Reread:
    """One text as the model reads it, without any push.

    scores : [token, emotion] in sd of neutral tokens, at the layer and by the metric of the vectors; NaN at token 0
    losses : [token] -log p of each token given those before, in nats; NaN at token 0
    following : [token of the vocabulary asked for] log-probabilities of what comes after the text
    """

    scores: np.ndarray
    losses: np.ndarray
    following: np.ndarray


@dataclass(frozen=True)
class Both:
    """Two texts as far as they are written: token ids, prompt included, without a push and with it.

    pushed : positions of the second text that were pushed
    finished : neither goes on
    """

    plain: tuple[int, ...]
    steered: tuple[int, ...]
    pushed: frozenset[int]
    finished: bool


def reread(
    subject: Subject, vectors: EmotionVectors, ids: Sequence[Sequence[int]], words: Sequence[int] = ()
) -> list[Reread]:
    """Read texts given as token ids, at least two each, in batches; one pass gives scores, losses and what follows."""
    layer, row, words = vectors.chosen_layer, vectors.row(), list(words)
    directions = vectors.directions() / vectors.neutral_sd[METRICS.index(vectors.metric), :, row][:, None]
    taken: list[torch.Tensor] = []

    def take(module, args, output):
        taken[:] = [output[0] if isinstance(output, tuple) else output]

    found: list[Reread | None] = [None] * len(ids)
    handle = subject.blocks[layer - 1].register_forward_hook(take)
    try:
        for batch in plan_batches([len(i) for i in ids], token_budget(subject)):
            logits = _logits(subject, *pad([ids[i] for i in batch], subject.pad_id))  # [text, token, vocabulary]
            for place, i in enumerate(batch):
                hidden = taken[0][place, : len(ids[i])].float().cpu().numpy()  # [token, d_model]
                scores = (hidden - vectors.neutral_mean[row]) @ directions.T
                scores[0] = np.nan
                chances = logits[place, : len(ids[i])].float().log_softmax(-1)
                target = torch.tensor(ids[i][1:], device=chances.device)[:, None]
                losses = -chances[:-1].gather(1, target)[:, 0].cpu().double().numpy()
                if not np.isfinite(hidden).all() or np.isnan(losses).any():
                    raise not_finite(subject, "numbers that are not finite")
                found[i] = Reread(scores, np.append(np.nan, losses), chances[-1, words].cpu().double().numpy())
    finally:
        handle.remove()
    return found


def side_by_side(
    subject: Subject,
    vectors: EmotionVectors,
    text: str,
    pushes: dict[str, float],
    *,
    layer: int | None = None,
    positions: Positions = None,
    max_new_tokens: int = 60,
    seed: int | None = None,
) -> Iterator[Both]:
    """Write on from a text without and with a push, both in one batch, and yield what there is after each token.

    Greedy without a seed. With one, both texts are drawn with the same random numbers: they differ by the push alone.
    Close the iterator to stop; the model is then as before. Parameters are those of `steer`.

    Raises EmolabError as `steer` does, and for a text that leaves no room in the context window.
    """
    prompt = subject.encode(text)
    if len(prompt) + max_new_tokens > subject.max_tokens:
        raise EmolabError(
            f"the prompt has {len(prompt)} tokens; with {max_new_tokens} new ones that is beyond the "
            f"{subject.max_tokens} that {subject.name} has room for: shorten it or write less"
        )
    push = direction(subject, vectors, pushes, layer)  # [d_model]
    edited = steer(subject, vectors, np.stack([0 * push, push]), layers=layer, positions=positions)
    random = None if seed is None else np.random.default_rng(seed)
    rows, alive = [list(prompt), list(prompt)], [True, True]
    fed, cache, ends = [list(prompt)] * 2, None, _end_ids(subject)
    with edited if push.any() else nullcontext([]) as passes:
        for number in range(max_new_tokens):
            logits, cache = _step(subject, fed, cache, len(prompt) + number)
            draw = None if random is None else float(random.random())
            fed = [[_pick(row, draw)] for row in logits]
            for which in (0, 1):
                alive[which] = alive[which] and fed[which][0] not in ends
                if alive[which]:
                    rows[which] += fed[which]
            pushed = frozenset(p for steered in passes for p in steered if p < len(rows[1]))
            finished = not any(alive) or number == max_new_tokens - 1
            yield Both(tuple(rows[0]), tuple(rows[1]), pushed, finished)
            if finished:
                return


def direction(
    subject: Subject, vectors: EmotionVectors, pushes: dict[str, float], layer: int | None = None
) -> np.ndarray:
    """[d_model] the sum of emotions' unit vectors at a layer (default the middle), times their strengths."""
    (layer,) = steered_layers(subject, vectors, layer)
    rows = [vectors.index(name) for name in pushes]
    units = unit(vectors.vectors[rows, vectors.row(layer)].astype(np.float64))  # [emotion, d_model]
    return np.array(list(pushes.values()), dtype=np.float64) @ units if rows else np.zeros(subject.d_model)


def repeated(ids: Sequence[int], n: int = 3) -> float:
    """The share of a text's n-grams that it has had before; NaN if it is too short to have one.

    >>> repeated([1, 2, 3, 1, 2, 3, 1])
    0.4
    """
    grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else float("nan")


def first_tokens(subject: Subject, cue: str, words: Sequence[str]) -> list[int]:
    """The first token of each word after a cue; words are told apart by it.

    Raises EmolabError if two words begin with the same token of this model.
    """
    start = len(subject.encode(cue))
    tokens = [subject.encode(f"{cue} {word}")[start] for word in words]
    for i, token in enumerate(tokens):
        if token in tokens[:i]:
            other = words[tokens.index(token)]
            raise EmolabError(
                f"{subject.name} writes {other!r} and {words[i]!r} with the same first token, so their words can't be "
                "told apart by it: leave one of them out of `emotions`"
            )
    return tokens


def pieces(subject: Subject, ids: Sequence[int]) -> list[str]:
    """[token] the text that each token adds; a character made of several tokens stands at the last of them."""
    shown, before = [], ""
    for end in range(1, len(ids) + 1):
        text = subject.tokenizer.decode(list(ids[:end]), clean_up_tokenization_spaces=False)
        text = text if end == len(ids) else text.rstrip("\ufffd")
        shown.append(text[len(before) :])
        before = text if len(text) > len(before) else before
    return shown


def own_hooks(subject: Subject) -> Subject:
    """The same model over again, sharing all weights, so that what is hooked to one leaves the other alone."""
    shared = {id(tensor): tensor for tensor in (*subject.model.parameters(), *subject.model.buffers())}
    return Subject(deepcopy(subject.model, shared), subject.tokenizer, subject.name, subject.revision)


def _logits(subject: Subject, input_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """[text, token, vocabulary]"""
    with torch.inference_mode(), brisk_attention(subject, input_ids):
        return subject.model(
            input_ids=input_ids.to(subject.device), attention_mask=mask.to(subject.device), use_cache=False
        ).logits


def _step(subject: Subject, fed: list[list[int]], cache, length: int) -> tuple[torch.Tensor, object]:
    """([text, vocabulary] logits of what follows, cache) after feeding [text, token] more."""
    with torch.inference_mode():
        output = subject.model(
            input_ids=torch.tensor(fed, device=subject.device),
            attention_mask=torch.ones(len(fed), length, dtype=torch.long, device=subject.device),
            past_key_values=cache,
            use_cache=True,
        )
        logits = output.logits[:, -1].float().cpu()
        if not (logits < float("inf")).all():
            raise not_finite(subject, "logits that are not numbers")
        return logits, output.past_key_values


def _pick(logits: torch.Tensor, draw: float | None) -> int:
    """The likeliest token, or for a number in 0..1 the one at that height of the cumulated chances."""
    if draw is None:
        return int(logits.argmax())
    top, order = (logits / TEMPERATURE).topk(min(TOP_K, len(logits)))
    heights = top.softmax(-1).cumsum(-1)
    return int(order[min(int((heights < draw).sum()), len(order) - 1)])


def _end_ids(subject: Subject) -> set[int]:
    named = getattr(getattr(subject.model, "generation_config", None), "eos_token_id", None)
    named = named if isinstance(named, list) else [named]
    return {i for i in (*named, subject.tokenizer.eos_token_id) if i is not None}
