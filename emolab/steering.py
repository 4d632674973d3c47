"""`steer()`: push the residual stream along a direction while a block of code runs, and undo it whatever happens.

Strength is in units of the mean length of the residual stream at that layer, so that 0.3 means the same at every
layer and in every model. Layer k is the residual stream after block k, the number that reading uses.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from emolab.errors import EmolabError
from emolab.model import Subject
from emolab.vectors import EmotionVectors


@contextmanager
def steer(
    subject: Subject,
    vectors: EmotionVectors,
    direction: str | np.ndarray,
    strength: float,
    *,
    layer: int | None = None,
    positions: slice | None = None,
) -> Iterator[None]:
    """While open, every pass of the model has `strength` x mean residual norm added along a unit direction.

    Parameters
    ----------
    direction : an emotion's name (its vector, not its probe), or any [d_model] array; only where it points counts.
    strength : in units of `vectors.residual_norm` at the layer; negative pushes the other way.
    layer : add after this block, 1..n_layers; default the chosen layer.
    positions : which tokens, counted from the start of the text, e.g. `slice(40, 45)`; default all. With a
        key-value cache tokens keep the numbers they have in the whole text. No left padding.

    Raises
    ------
    EmolabError : vectors of another model, an unknown emotion, a direction of the wrong shape or without length,
        a layer that can't be steered, positions that are not a plain stretch of tokens.

    Method: paper section 2 (activation addition); strength as a share of the residual norm as there.
    """
    vectors.check(subject)
    row = vectors.row(layer)
    layer = vectors.layers[row]
    start, stop = _stretch(positions)
    if layer < 1:
        raise EmolabError("layer 0, the embeddings, can't be steered: choose a layer from 1 on")
    array = vectors.vectors[vectors.index(direction), row] if isinstance(direction, str) else np.asarray(direction)
    length = np.linalg.norm(array)
    if array.shape != (subject.d_model,) or not np.isfinite(length) or length == 0:
        raise EmolabError(f"a direction is an array of {subject.d_model} numbers, not all zero; got {array.shape}")
    push = torch.from_numpy(array / length * strength * vectors.residual_norm[row]).float()
    seen = 0  # tokens that the key-value cache already holds

    def before(module, args, kwargs):
        nonlocal seen
        cache = kwargs.get("past_key_values")
        seen = 0 if cache is None else int(cache.get_seq_length())

    def after(module, args, output):
        hidden = output[0] if isinstance(output, tuple) else output  # [text, token, d_model]
        place = torch.arange(seen, seen + hidden.shape[1], device=hidden.device)
        chosen = (place >= start) & (place < stop)  # [token]
        added = chosen[:, None] * push.to(hidden.device)  # [token, d_model]
        pushed = (hidden.float() + added).to(hidden.dtype)
        return (pushed, *output[1:]) if isinstance(output, tuple) else pushed

    handles = []
    try:
        for module in (subject.model, subject.decoder):  # reading runs the decoder alone, writing the whole model
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(subject.blocks[layer - 1].register_forward_hook(after))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _stretch(positions: slice | None) -> tuple[int, float]:
    """(first, one after the last) token of a slice with plain bounds."""
    positions = slice(None) if positions is None else positions
    start, stop = positions.start or 0, float("inf") if positions.stop is None else positions.stop
    if positions.step not in (None, 1) or start < 0 or stop <= start:
        raise EmolabError(f"positions are a stretch of tokens such as slice(40, 45), counted from 0; got {positions}")
    return start, stop
