"""Changing the residual stream while a block of code runs: `steer()` adds to it, `ablate()` takes a subspace out.

Both are undone whatever happens inside. Layer k is the residual stream after block k, the number that reading uses.
Strength is in units of the mean length of the residual stream at that layer, so that 0.3 means the same at every
layer and in every model.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Real

import numpy as np
import torch

from emolab.errors import EmolabError
from emolab.model import Subject
from emolab.vectors import EmotionVectors

PARTS = ("prompt", "generated")  # what the first pass reads, and what is written after it
Positions = slice | str | None
Push = float | dict[str, float] | np.ndarray


@contextmanager
def steer(
    subject: Subject,
    vectors: EmotionVectors,
    push: Push,
    *,
    layers: int | Sequence[int] | None = None,
    positions: Positions = None,
) -> Iterator[list[range]]:
    """While open, every pass of the model has a push added to its residual stream.

    >>> with steer(subject, vectors["calm"], 0.3): subject.generate("Dear diary,")       # doctest: +SKIP
    >>> with steer(subject, vectors, {"calm": 0.3, "afraid": -0.1}, layers=[14, 15]): ... # doctest: +SKIP

    Parameters
    ----------
    push : a strength, if `vectors` holds one emotion; strengths of several emotions by name; or a [d_model] array for
        a direction of your own, whose length is the strength; or [text, d_model], a row for each text of every batch
        that is run. Emotions are pushed along their vectors, not probes. Strength is in units of
        `vectors.residual_norm` at the layer; negative pushes the other way.
    layers : add after these blocks, 1..n_layers, the whole push after each; default the one in the middle.
    positions : which tokens, counted from the start of the text: `slice(40, 45)`, 'prompt' (what the first pass
        reads), 'generated' (what is written after it, with a key-value cache), default all.

    Yields a list that grows by a `range` with each pass: the token positions that were really pushed.

    Raises
    ------
    EmolabError : vectors of another model, an unknown emotion, a push of the wrong shape or without length, a layer
        that can't be steered, positions that make no sense, left padding together with a slice; within the block, a
        batch of another size than the push.

    Method: paper section 2 (activation addition), strength as a share of the residual norm as there.
    """
    vectors.check(subject)
    chosen = steered_layers(subject, vectors, layers)
    added = {layer: torch.from_numpy(_array(subject, vectors, push, layer)).float() for layer in chosen}

    def pushed(layer: int, hidden: torch.Tensor) -> torch.Tensor:
        push = added[layer].to(hidden.device)
        if push.ndim == 2 and len(push) != len(hidden):
            raise EmolabError(f"a push for {len(push)} texts can't steer a batch of {len(hidden)}: give a row for each")
        return hidden + (push[:, None] if push.ndim == 2 else push)

    with _edited(subject, chosen, pushed, positions) as passes:
        yield passes


@contextmanager
def ablate(
    subject: Subject,
    basis: np.ndarray,
    centre: np.ndarray,
    layer: int,
    *,
    positions: Positions = slice(1, None),
) -> Iterator[list[range]]:
    """While open, the residual stream after block `layer` has no part in a subspace but that of its centre.

    basis : [direction, d_model], made orthonormal here
    centre : [d_model] where the removed part is set to, such as the neutral mean (mean ablation)
    positions : as in `steer`; by default all but token 0, whose activations are unlike all others

    Yields the positions of each pass. Raises EmolabError for a basis of the wrong shape or a layer that isn't there.
    """
    basis = np.atleast_2d(np.asarray(basis, dtype=np.float64))
    if basis.shape[1] != subject.d_model or not np.isfinite(basis).all() or len(basis) > subject.d_model:
        raise EmolabError(f"a basis is [direction, {subject.d_model}] finite numbers; got {basis.shape}")
    if not 1 <= layer <= subject.n_layers:
        raise EmolabError(f"layer {layer} can't be changed: {subject.name} has 1..{subject.n_layers}")
    axes = torch.from_numpy(np.linalg.qr(basis.T)[0]).float()  # [d_model, direction]
    middle = torch.from_numpy(np.asarray(centre)).float()

    def without(_: int, hidden: torch.Tensor) -> torch.Tensor:
        away = hidden - middle.to(hidden.device)
        return hidden - (away @ axes.to(hidden.device)) @ axes.T.to(hidden.device)

    with _edited(subject, (layer,), without, positions) as passes:
        yield passes


def steered_layers(subject: Subject, vectors: EmotionVectors, layers: int | Sequence[int] | None) -> tuple[int, ...]:
    """The layers to steer, default the middle one. Raises EmolabError for one that can't be."""
    if layers is None:
        layers = max(subject.n_layers // 2, 1)
    chosen = tuple(sorted({layers} if isinstance(layers, int) else set(layers)))
    if not chosen or chosen[0] < 1:
        raise EmolabError(f"layers {layers} can't be steered: choose from 1 on (0 is the embeddings)")
    for layer in chosen:
        vectors.row(layer)
    return chosen


def _array(subject: Subject, vectors: EmotionVectors, push: Push, layer: int) -> np.ndarray:
    """[d_model] or [text, d_model] what is added at a layer."""
    row = vectors.row(layer)
    if isinstance(push, Real):
        if len(vectors) != 1:
            raise EmolabError(
                f'these vectors hold {len(vectors)} emotions: say which to push, as in {{"calm": {push}}} or '
                f'steer(subject, vectors["calm"], {push})'
            )
        push = {vectors.emotions[0]: push}
    if isinstance(push, dict):
        arrays = [strength * _unit(vectors.vectors[vectors.index(name), row]) for name, strength in push.items()]
        push = np.sum(arrays, axis=0) if arrays else np.zeros(0)
    push = np.asarray(push, dtype=np.float64)
    if push.ndim not in (1, 2) or push.shape[-1] != subject.d_model or not np.isfinite(push).all() or not push.any():
        raise EmolabError(f"a push is {subject.d_model} finite numbers, not all zero; got an array of {push.shape}")
    return push * vectors.residual_norm[row]


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector.astype(np.float64) / max(np.linalg.norm(vector), 1e-30)


@contextmanager
def _edited(
    subject: Subject,
    layers: Sequence[int],
    edit: Callable[[int, torch.Tensor], torch.Tensor],
    positions: Positions,
) -> Iterator[list[range]]:
    """While open, `edit(layer, hidden [text, token, d_model] in float32)` replaces the residual stream at positions."""
    start, stop = _stretch(positions)
    seen = 0  # tokens that the key-value cache already holds
    passes: list[range] = []

    def before(module, args, kwargs):
        nonlocal seen
        cache, mask = kwargs.get("past_key_values"), kwargs.get("attention_mask")
        seen = 0 if cache is None else int(cache.get_seq_length())
        flat = isinstance(mask, torch.Tensor) and mask.ndim == 2
        if isinstance(positions, slice) and positions != slice(None) and start > 1 and flat and not mask[:, 0].all():
            raise EmolabError("positions are counted from the start of a text: pad on the right, or steer one by one")

    def after(layer):
        def change(module, args, output):
            hidden = output[0] if isinstance(output, tuple) else output  # [text, token, d_model]
            first, last = _within(positions, start, stop, seen, hidden.shape[1])
            if layer == layers[0]:
                passes.append(range(first, last))
            changed = hidden.clone()
            part = slice(first - seen, last - seen)
            changed[:, part] = edit(layer, hidden[:, part].float()).to(hidden.dtype)
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        return change

    handles = []
    try:
        for module in (subject.model, subject.decoder):  # reading runs the decoder alone, writing the whole model
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        handles += [subject.blocks[layer - 1].register_forward_hook(after(layer)) for layer in layers]
        yield passes
    finally:
        for handle in handles:
            handle.remove()


def _within(positions: Positions, start: int, stop: float, seen: int, length: int) -> tuple[int, int]:
    """(first, one after the last) position to change among those of this pass, seen .. seen + length - 1."""
    if positions in PARTS and (positions == "prompt") == (seen > 0):
        return seen, seen
    first = min(max(start, seen), seen + length)
    return first, int(max(first, min(stop, seen + length)))


def _stretch(positions: Positions) -> tuple[int, float]:
    """(first token, one after the last) of positions."""
    if positions is None or positions in PARTS:
        return 0, float("inf")
    if not isinstance(positions, slice):
        raise EmolabError(f"positions are a slice such as slice(40, 45), 'prompt' or 'generated'; got {positions!r}")
    start, stop = positions.start or 0, float("inf") if positions.stop is None else positions.stop
    if positions.step not in (None, 1) or start < 0 or stop <= start:
        raise EmolabError(f"positions are a stretch of tokens such as slice(40, 45), counted from 0; got {positions}")
    return start, stop
