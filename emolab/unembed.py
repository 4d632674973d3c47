"""The model's last steps as a function of states, `unembedding()`, and its tokens as words.

Final norm and unembedding have a name of their own in every architecture, so they are found by watching the model run.
"""

from collections.abc import Callable

import torch

from emolab.model import Subject

Unembed = Callable[[torch.Tensor], torch.Tensor]


def beginnings(subject: Subject, word: str) -> set[int]:
    """The first token that is no blank of a word, with and without a leading blank and a capital."""
    found = set()
    for form in {word, word.capitalize()}:
        for text in (form, f" {form}"):
            ids = subject.tokenizer(text, add_special_tokens=False)["input_ids"]
            found.update([i for i in ids if subject.tokenizer.decode([i]).strip()][:1])
    return found - {subject.tokenizer.unk_token_id}


def shown(subject: Subject, token: int) -> str:
    """A token as text on one line; a leading blank is shown as ·."""
    decoded, piece = subject.tokenizer.decode([token]), subject.tokenizer.convert_ids_to_tokens([token])[0] or ""
    blank = decoded.startswith(" ") or piece.startswith("▁")  # sentencepiece drops the blank of a single token
    return ("·" if blank else "") + decoded.strip(" ").replace("\n", "\\n").replace("\t", "\\t")


def unembedding(subject: Subject) -> Unembed:
    """What the model does after its last block, as a function of states: [state, d_model] -> [state, vocabulary].

    The modules that run after the last block, whatever they are called, are found by watching one pass, and checked:
    they must rank tokens as the model does. If they don't (the model does something more in between), the states are
    put in place of the last block's output and the whole model runs, which is slower.
    """
    tail = _modules_after_blocks(subject)

    def short(states: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            for module in tail:
                states = module(states)
            return states

    def whole(states: torch.Tensor) -> torch.Tensor:
        return torch.cat([through_model(subject, part) for part in states.split(64)])

    sample = torch.randn((4, subject.d_model), generator=torch.Generator().manual_seed(0)) * 10
    sample = sample.to(subject.device, subject.dtype)
    truth = whole(sample).float()
    try:
        found = short(sample).float()
        same = found.shape == truth.shape and _rank_correlation(found, truth) > 0.999
    except (RuntimeError, TypeError):
        same = False
    return short if same else whole


def _modules_after_blocks(subject: Subject) -> list[torch.nn.Module]:
    """The outermost modules called after the last block, in order."""
    order: list[torch.nn.Module] = []
    running: list[torch.nn.Module] = []
    past = False

    def enter(module, args):
        if past and not running:
            order.append(module)
        if past:
            running.append(module)

    def leave(module, args, output):
        nonlocal past
        past = past or module is subject.blocks[-1]
        if running and running[-1] is module:
            running.pop()

    handles = [
        handle
        for module in subject.model.modules()
        for handle in (module.register_forward_pre_hook(enter), module.register_forward_hook(leave))
    ]
    try:
        _run_one_token(subject, 1)
    finally:
        for handle in handles:
            handle.remove()
    return order


def through_model(subject: Subject, states: torch.Tensor) -> torch.Tensor:
    """[state, vocabulary] the model's logits when states [state, d_model] are what its last block gives."""

    def instead(module, args, output):
        hidden = output[0] if isinstance(output, tuple) else output
        hidden = states.to(hidden)[:, None]  # [text, token, d_model], one token each
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = subject.blocks[-1].register_forward_hook(instead)
    try:
        return _run_one_token(subject, len(states))
    finally:
        handle.remove()


def _run_one_token(subject: Subject, n: int) -> torch.Tensor:
    """[text, vocabulary] logits of n texts of one token."""
    ids = torch.full((n, 1), subject.pad_id, device=subject.device)
    with torch.inference_mode():
        return subject.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[:, 0]


def _rank_correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    """The least correlation of the ranks of two rows of logits."""
    ranks = [values.argsort(1).argsort(1).double() for values in (a, b)]
    centred = [torch.nn.functional.normalize(r - r.mean(1, keepdim=True)) for r in ranks]
    return float((centred[0] * centred[1]).sum(1).min())
