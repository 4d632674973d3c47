"""Directions that mean nothing, to set beside those of emotions when a model is changed along them."""

import numpy as np

from emolab import data
from emolab.activations import sample_tokens
from emolab.directions import unit
from emolab.errors import unknown
from emolab.model import Subject
from emolab.vectors import EmotionVectors

KINDS = ("uniform", "matched variance", "outside the emotions")


def random_directions(
    subject: Subject, vectors: EmotionVectors, layer: int, n: int, kind: str = KINDS[1], seed: int = 0
) -> np.ndarray:
    """[direction, d_model] random directions of length 1 at a layer.

    kind : 'uniform', all directions alike; 'matched variance', mixtures of neutral tokens, so that they vary as the
        residual stream does; 'outside the emotions', the same without what lies in the emotion vectors' own subspace
        (90 % of their variance): a random direction may by chance be an emotion.

    Raises EmolabError for another kind, vectors of another model or a layer that they don't hold.
    """
    vectors.check(subject)
    row = vectors.row(layer)
    rng = np.random.default_rng(seed)
    if kind == "uniform":
        return unit(rng.standard_normal((n, subject.d_model)))
    if kind not in KINDS:
        raise unknown("kind of random direction", kind, KINDS)
    tokens = sample_tokens(subject, data.neutral()[::8], layers=[layer], offset=10, progress=None)[0]
    mixed = rng.standard_normal((n, len(tokens))) @ (tokens - tokens.mean(0))
    if kind == KINDS[2]:
        axes = subspace(vectors.vectors[:, row], share=0.9)
        mixed = mixed - (mixed @ axes.T) @ axes
    return unit(mixed)


def subspace(vectors: np.ndarray, k: int | None = None, share: float = 0.9) -> np.ndarray:
    """[component, d_model] orthonormal main directions of vectors [emotion, d_model]: k of them, or so many that
    they hold a share of the variance.

    >>> subspace(np.array([[3.0, 0, 0], [-3, 0, 0], [0, 1, 0], [0, -1, 0]]), share=0.8).round().tolist()
    [[1.0, 0.0, 0.0]]
    """
    _, values, axes = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    if k is None:
        held = np.cumsum(values**2) / (values**2).sum()
        k = int(np.searchsorted(held, share)) + 1
    axes = axes[:k]
    return axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])[:, None]
