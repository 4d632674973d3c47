"""What a subspace of the residual stream is good for: losses without it, and other subspaces to compare it with.

`losses_without` runs the blocks below the change once, however many subspaces are taken out. `matched_subspaces` draws
subspaces that take away as much as a given one does, and mean something else.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.optimize import least_squares

from emolab.activations import brisk_attention, encode_all, plan_batches, sample_tokens, token_budget
from emolab.likelihood import token_losses
from emolab.model import Subject
from emolab.nulls import subspace
from emolab.steering import ablate
from emolab.vectors import EmotionVectors

AXES = 512  # principal axes that random mixtures are drawn over
PER_TEXT = 48  # tokens of each text that they are made from


def losses_without(
    subject: Subject, texts: Sequence[str], bases: Sequence[np.ndarray], centre: np.ndarray, layer: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Losses of the tokens of each text as the model is, and without each of some subspaces (`steering.ablate`).

    Returns, for each text, [1 + basis, token] losses in nats, the unchanged model's first; and [1 + basis, token] the
    squared distance from the centre, first all of it, then what lies in each subspace. Token 0 is NaN in both.
    Raises EmolabError as `token_losses` and `ablate` do.
    """
    ids = encode_all(subject, texts, 1)
    losses: list[np.ndarray] = [np.empty(0)] * len(ids)
    squares: list[np.ndarray] = [np.empty(0)] * len(ids)
    axes = [np.linalg.qr(np.atleast_2d(basis).T)[0].T for basis in bases]  # orthonormal rows
    with brisk_attention(subject, ids), lower_blocks_once(subject, layer) as kept:
        for batch in plan_batches([len(i) for i in ids], token_budget(subject)):
            here = [texts[i] for i in batch]
            found = [token_losses(subject, here)]
            hidden = kept.hidden.float().cpu().numpy() - centre  # [text, token, d_model]
            for basis in axes:
                with ablate(subject, basis, centre, layer):
                    found.append(token_losses(subject, here))
            for place, i in enumerate(batch):
                losses[i] = np.stack([one[place] for one in found])
                squares[i] = _squares(hidden[place, : len(ids[i])], axes)
    return losses, squares


def _squares(centred: np.ndarray, axes: Sequence[np.ndarray]) -> np.ndarray:
    """[1 + basis, token] squared lengths of centred activations [token, d_model], whole and within each subspace."""
    found = np.stack([(centred**2).sum(1), *(((centred @ basis.T) ** 2).sum(1) for basis in axes)])
    found[:, 0] = np.nan
    return found


@dataclass
class Kept:
    """What the lower blocks made of the input that they saw last."""

    entered: torch.Tensor | None = None
    hidden: torch.Tensor | None = None
    again: bool = False
    extras: dict[int, tuple | None] = field(default_factory=dict)  # what blocks return beside the residual stream


@contextmanager
def lower_blocks_once(subject: Subject, layer: int) -> Iterator[Kept]:
    """While open, blocks 1..layer don't run again when the same input comes as the time before.

    Hooks on them run all the same, and what comes after `layer` is computed afresh. Undone whatever happens inside.
    """
    kept, blocks = Kept(), list(subject.blocks[:layer])
    own = [block.__dict__.get("forward") for block in blocks]

    def quick(number: int, original):
        def run(*args, **kwargs):
            entering = args[0] if args else kwargs["hidden_states"]
            if number == 0:
                kept.again = kept.entered is not None and torch.equal(kept.entered, entering)
                kept.entered = entering
            if not kept.again:
                output = original(*args, **kwargs)
                kept.extras[number] = output[1:] if isinstance(output, tuple) else None
                if number == len(blocks) - 1:
                    kept.hidden = output[0] if isinstance(output, tuple) else output
                return output
            hidden = kept.hidden if number == len(blocks) - 1 else entering
            return hidden if kept.extras[number] is None else (hidden, *kept.extras[number])

        return run

    try:
        for number, block in enumerate(blocks):
            block.forward = quick(number, block.forward)
        yield kept
    finally:
        for block, forward in zip(blocks, own, strict=True):
            block.__dict__.pop("forward", None)
            if forward is not None:
                block.forward = forward


def null_subspaces(
    subject: Subject,
    vectors: EmotionVectors,
    basis: np.ndarray,
    layer: int,
    pool: tuple[Sequence[str], Sequence[str]],
    n: int,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """n subspaces mixed of tokens' activations, then n mixed of means of texts, all outside the emotions.

    basis : [direction, d_model] what they are matched to, about the neutral mean
    pool : emotional and neutral texts that they are made from, not those that they are judged by
    """
    row = vectors.row(layer)
    around = subspace(vectors.vectors[:, row].astype(float), share=0.9)
    groups, tokens, means = [], [], []
    for texts in pool:
        hidden = sample_tokens(subject, texts, layers=[layer], offset=1, per_text=PER_TEXT, progress=None)[0]
        away = hidden.astype(float) - vectors.neutral_mean[row]
        groups.append(away)
        scaled = away / np.linalg.norm(away, axis=1, keepdims=True)
        by_text = scaled.reshape(len(texts), PER_TEXT, -1).mean(1)  # [text, d_model]
        tokens.append(_outside(scaled - scaled.mean(0), around))
        means.append(_outside(by_text - by_text.mean(0), around))
    found = list(matched_subspaces(basis, np.concatenate(tokens), groups, n, int(rng.integers(2**31))))
    for _ in range(n):  # other texts each time: their main contents leave little to chance
        half = np.concatenate([one[rng.choice(len(one), len(one) // 2, replace=False)] for one in means])
        found += list(matched_subspaces(basis, half, groups, 1, int(rng.integers(2**31))))
    return found


def _outside(rows: np.ndarray, basis: np.ndarray) -> np.ndarray:
    return rows - (rows @ basis.T) @ basis


def matched_subspaces(
    basis: np.ndarray, mixed: np.ndarray, groups: Sequence[np.ndarray], n: int, seed: int = 0
) -> np.ndarray:
    """[draw, direction, d_model] random orthonormal subspaces that take as much from two groups as a basis does.

    basis : [direction, d_model] orthonormal, what to match
    mixed : [sample, d_model] what the random directions are mixtures of; they stay within what these span
    groups : two arrays [token, d_model], measured from where the removed part is set to. From each of them a draw
        takes the share that the basis takes (`share`), as nearly as such mixtures can

    Two numbers make a draw fit: how much the mixtures lean to directions in which `mixed` varies much, and how much to
    those in which the first group varies more than the second. Without the second a subspace of random mixtures would
    take more from one group than the basis does and less from the other, and that alone could make a difference.
    """
    rng = np.random.default_rng(seed)
    _, values, axes = np.linalg.svd(mixed, full_matrices=False)
    axes, values = axes[values > values[0] * 1e-3][:AXES], values[values > values[0] * 1e-3][:AXES]
    targets = np.log([max(share(group, basis), 1e-6) for group in groups])
    moments = [_moment(group @ axes.T, group) for group in groups]  # [axis, axis] each
    ratio, leaning = _leaning(*moments)
    spread = np.log(values / values[0])

    def draw(noise: np.ndarray, tilt: np.ndarray) -> np.ndarray:
        rows = (noise * ratio ** tilt[1]) @ leaning * np.exp(tilt[0] * spread)
        return np.linalg.qr(rows.T)[0].T  # [direction, axis]

    def misses(tilt: np.ndarray, noise: np.ndarray) -> np.ndarray:
        rows = draw(noise, tilt)
        return np.log([((rows @ moment) * rows).sum() for moment in moments]) - targets

    found = []
    for _ in range(n):
        noise = rng.standard_normal((len(basis), len(axes)))
        fitted = least_squares(
            misses, (1.0, 0.5), bounds=((-1, -8), (4, 8)), args=(noise,), diff_step=0.02, max_nfev=30
        )
        found.append(draw(noise, fitted.x) @ axes)
    return np.stack(found)


def share(activations: np.ndarray, basis: np.ndarray) -> float:
    """Mean over tokens of the share of the squared length that lies within an orthonormal basis.

    A share for each token, for a few tokens are so long that they would outweigh all others.
    """
    return float((((activations @ basis.T) ** 2).sum(1) / (activations**2).sum(1)).mean())


def _moment(along: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """[axis, axis] mean product of the coordinates of tokens [token, axis], each token at length 1."""
    scaled = along / np.linalg.norm(whole, axis=1, keepdims=True)
    return scaled.T @ scaled / len(scaled)


def _leaning(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[axis] how much more one moment holds than another along directions at right angles, and [axis, axis] these.

    Both are shrunk to their diagonals: with few tokens the extremes would be noise.
    """
    first, second = (0.9 * moment + 0.1 * np.diag(np.diag(moment)) for moment in (first, second))
    values, axes = np.linalg.eigh(second)
    white = axes / np.sqrt(values) @ axes.T
    ratio, turned = np.linalg.eigh(white @ first @ white)
    return ratio / ratio.max(), turned.T
